"""A small residual network, trained from random weights."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional

from training.fit.data import Images, enlarge
from training.fit.muon import Muon
from training.fit.network import Network
from training.fit.recipe import Recipe


@dataclass(frozen=True, kw_only=True)
class ResidualRecipe(Recipe):
    """The hyper-parameters of `ResidualNetwork`."""

    network: str = "residual"
    name: str = "residual-muon-3"
    input_size: int = 32
    epochs: int = 180
    mirrored: bool = True
    quantised_activations: bool = True

    # Channels of the three groups.
    widths: tuple[int, int, int] = (48, 96, 128)
    # Images whose 2x2 patches set the whitening layer.
    whitening_images: int = 2000

    muon_lr: float = 0.16
    muon_momentum: float = 0.6
    sgd_lr: float = 0.05
    sgd_momentum: float = 0.85
    weight_decay: float = 5e-4


RECIPE = ResidualRecipe()


class ResidualNetwork(Network):
    """A small residual network whose first layer whitens.

    The layout follows Keller Jordan's airbench (2024, https://arxiv.org/abs/2404.00498).

    Parameters
    ----------
    outputs, labels : int
        Number of logits, and how many of them are labels.
    recipe : ResidualRecipe
        Widths, and what is needed to train it.
    """

    def __init__(self, outputs: int, labels: int, recipe: ResidualRecipe) -> None:
        super().__init__()
        self.labels, self.recipe = labels, recipe
        widths = recipe.widths
        # 12 directions of a 2x2 patch of 3 channels, each with both signs.
        self.whiten = nn.Conv2d(3, 24, 2, bias=False)
        self.whiten.weight.requires_grad = False
        self.groups = nn.Sequential(*(_Group(a, b) for a, b in zip((24, *widths[:-1]), widths, strict=True)))
        # The norm of the head's input grows with its width; small first logits do not saturate the softmax.
        self.logit_scale = 2 / widths[-1] ** 0.5
        self.head = nn.Linear(widths[-1], outputs)

    def activations(self, x: torch.Tensor) -> torch.Tensor:
        return self.groups(functional.relu(self.whiten(x - 0.5)))

    def pool(self, activations: torch.Tensor) -> torch.Tensor:
        return activations.amax(dim=(2, 3))

    def logits(self, features: torch.Tensor) -> torch.Tensor:
        return self.head(features) * self.logit_scale

    def optimisers(self) -> list[torch.optim.Optimizer]:
        filters = [p for p in self.groups.parameters() if p.ndim == 4]
        taken = {id(parameter) for parameter in filters}
        rest = [p for p in self.parameters() if p.requires_grad and id(p) not in taken]
        recipe = self.recipe
        return [
            Muon(filters, recipe.muon_lr, recipe.muon_momentum),
            torch.optim.SGD(rest, recipe.sgd_lr, recipe.sgd_momentum, weight_decay=recipe.weight_decay, nesterov=True),
        ]

    def prepare(self, images: Images, generator: torch.Generator) -> None:
        """Make the first layer's outputs uncorrelated and of equal variance over a sample of the images."""
        sample = [
            members[torch.randperm(len(members), generator=generator)[: self.recipe.whitening_images // 2]]
            for members in images.partition(self.labels)
        ]
        pixels = enlarge(images.take(torch.cat(sample)).pixels, self.recipe.input_size)
        self.whiten_over(pixels.permute(0, 3, 1, 2).float() / 255)

    def whiten_over(self, x: torch.Tensor) -> None:
        """Set the first layer from images (n, 3, edge, edge), 0 to 1."""
        with torch.no_grad():
            patches = functional.unfold(x - 0.5, 2).transpose(1, 2).reshape(-1, 12)
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


NETWORK = ResidualNetwork
