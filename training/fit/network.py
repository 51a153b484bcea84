"""The network, behind the interface that training needs. To train another one, add it here and create it in
`create_network`.
"""

from abc import ABC, abstractmethod

import torch
from torch import nn
from torch.nn import functional

from training.fit.recipe import Recipe


class Network(nn.Module, ABC):
    """Maps images (batch, 3, edge, edge), 0 to 1, to logits: one per label, then one per background class."""

    @abstractmethod
    def muon_parameters(self) -> list[nn.Parameter]:
        """List the weights, at least two-dimensional, that Muon trains; SGD trains the others."""

    @abstractmethod
    def prepare(self, images: torch.Tensor) -> None:
        """Adapt the new network to some training images (n, 3, edge, edge), before the first step."""


def create_network(outputs: int, recipe: Recipe) -> Network:
    """Create an untrained network with this number of logits."""
    return ResidualNetwork(outputs, recipe.widths)


class ResidualNetwork(Network):
    """A small residual network whose first layer whitens.

    The layout follows Keller Jordan's airbench (2024, https://arxiv.org/abs/2404.00498).

    Parameters
    ----------
    outputs : int
        Number of logits.
    widths : tuple of int
        Channels of the three groups.
    """

    def __init__(self, outputs: int, widths: tuple[int, int, int]) -> None:
        super().__init__()
        # 12 directions of a 2x2 patch of 3 channels, each with both signs.
        self.whiten = nn.Conv2d(3, 24, 2, bias=False)
        self.whiten.weight.requires_grad = False
        self.groups = nn.Sequential(*(_Group(a, b) for a, b in zip((24, *widths[:-1]), widths, strict=True)))
        # The norm of the head's input grows with its width; small first logits do not saturate the softmax.
        self.logit_scale = 2 / widths[-1] ** 0.5
        self.head = nn.Linear(widths[-1], outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.whiten(x - 0.5))
        return self.head(self.groups(x).amax(dim=(2, 3))) * self.logit_scale

    def muon_parameters(self) -> list[nn.Parameter]:
        return [p for p in self.groups.parameters() if p.ndim == 4]

    def prepare(self, images: torch.Tensor) -> None:
        """Make the first layer's outputs uncorrelated and of equal variance over these images."""
        with torch.no_grad():
            patches = functional.unfold(images - 0.5, 2).transpose(1, 2).reshape(-1, 12)
            patches = patches - patches.mean(dim=0)
            values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
            # The small constant keeps directions that hardly occur (in drawn or grey images) from becoming noise.
            directions = (vectors / (values + 5e-4).sqrt()).T.reshape(12, 3, 2, 2)
            self.whiten.weight.copy_(torch.cat([directions, -directions]))


class _Group(nn.Module):
    """Halve the image, then a convolution with a skip connection."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.first_norm = _norm(outputs)
        self.second_norm = _norm(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.first_norm(functional.max_pool2d(self.first(x), 2)))
        return x + functional.relu(self.second_norm(self.second(x)))


def _norm(channels: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels, momentum=0.2)
    # As in airbench: the scales add nothing, since the next layer has its own.
    norm.weight.requires_grad = False
    return norm


def merge_background(logits: torch.Tensor, labels: int) -> torch.Tensor:
    """Merge the logits of all background classes into one.

    Parameters
    ----------
    logits : torch.Tensor
        Shape (n, outputs): one per label, then one per background class, if any.
    labels : int
        How many outputs are labels.

    Returns
    -------
    torch.Tensor
        Shape (n, labels + 1), or (n, labels) without background. A softmax gives the labels the same probabilities
        as a softmax over all outputs.
    """
    if logits.shape[1] == labels:
        return logits
    return torch.cat([logits[:, :labels], logits[:, labels:].logsumexp(dim=1, keepdim=True)], dim=1)
