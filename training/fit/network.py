"""The network: small, residual, with a first layer that whitens; and the form in which it is served."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn import functional


def _norm(channels: int) -> nn.BatchNorm2d:
    norm = nn.BatchNorm2d(channels, momentum=0.2)
    # As in airbench: the scales add nothing, since the next layer has its own.
    norm.weight.requires_grad = False
    return norm


class _Group(nn.Module):
    """Halve the image, then a convolution with a way around it."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.first_norm = _norm(outputs)
        self.second_norm = _norm(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.first_norm(functional.max_pool2d(self.first(x), 2)))
        return x + functional.relu(self.second_norm(self.second(x)))


class Network(nn.Module):
    """Images to logits.

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
        """Map images (batch, 3, edge, edge), 0 to 1, to logits (batch, outputs)."""
        x = functional.relu(self.whiten(x - 0.5))
        return self.head(self.groups(x).amax(dim=(2, 3))) * self.logit_scale

    def filters(self) -> list[nn.Parameter]:
        """List the convolution weights that Muon trains."""
        return [p for p in self.groups.parameters() if p.ndim == 4]

    def set_whitening(self, images: torch.Tensor) -> None:
        """Make the first layer's outputs uncorrelated and of equal variance over these images.

        Parameters
        ----------
        images : torch.Tensor
            Shape (n, 3, edge, edge), values 0 to 1.
        """
        with torch.no_grad():
            patches = functional.unfold(images - 0.5, 2).transpose(1, 2).reshape(-1, 12)
            patches = patches - patches.mean(dim=0)
            values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
            # The small constant keeps directions that hardly occur (in drawn or grey images) from becoming noise.
            directions = (vectors / (values + 5e-4).sqrt()).T.reshape(12, 3, 2, 2)
            self.whiten.weight.copy_(torch.cat([directions, -directions]))


def collapse(logits: torch.Tensor, labels: int) -> torch.Tensor:
    """Merge the logits of all kinds of other things into one.

    Parameters
    ----------
    logits : torch.Tensor
        Shape (n, outputs): one per label, then one per kind of other things, perhaps none.
    labels : int
        How many outputs are labels.

    Returns
    -------
    torch.Tensor
        Shape (n, labels + 1), or (n, labels) where there are no other things. A softmax gives the labels the
        probabilities that it gives them over all outputs.
    """
    if logits.shape[1] == labels:
        return logits
    return torch.cat([logits[:, :labels], logits[:, labels:].logsumexp(dim=1, keepdim=True)], dim=1)


@dataclass(frozen=True)
class Calibration:
    """How logits become probabilities: which label, times whether it is one at all.

    The label logits are divided by `temperature` (Guo et al. 2017, https://arxiv.org/abs/1706.04599). The lead of
    the labels together over other things is scaled by `gate_scale`, moved by `gate_shift`, and becomes a
    probability by the logistic function (Platt 1999, "Probabilistic outputs for support vector machines").
    """

    temperature: float = 1.0
    gate_scale: float = 1.0
    gate_shift: float = 0.0


class ServedModel(nn.Module):
    """What the endpoint runs: from stored pixels to one probability per label.

    The image and its mirror image are both looked at. Where the network knows other things, the probabilities sum
    to less than one: the rest is "neither".

    Parameters
    ----------
    network : Network
        Trained, one output per label, then perhaps some for kinds of other things.
    labels : int
        How many outputs are labels.
    calibration : Calibration
        Fitted on images that the network was not trained on.
    """

    def __init__(self, network: Network, labels: int, calibration: Calibration) -> None:
        super().__init__()
        self.network = network
        self.labels = labels
        self.calibration = calibration

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """Map uint8 (batch, edge, edge, 3) to the mean logits of both views, as `collapse` makes them."""
        x = images.permute(0, 3, 1, 2).float() / 255
        # One pass over a double batch keeps a single copy of the weights in the exported graph.
        plain, mirrored = collapse(self.network(torch.cat([x, x.flip(3)])), self.labels).chunk(2)
        return (plain + mirrored) / 2

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map uint8 (batch, edge, edge, 3) to probabilities (batch, labels)."""
        return probabilities(self.logits(images), self.labels, self.calibration)


def lead(logits: torch.Tensor, labels: int) -> torch.Tensor:
    """Return by how much the labels together lead over other things, (n, 1), of logits (n, labels + 1)."""
    return logits[:, :labels].logsumexp(dim=1, keepdim=True) - logits[:, labels:]


def probabilities(logits: torch.Tensor, labels: int, calibration: Calibration) -> torch.Tensor:
    """Turn logits that `collapse` made into probabilities (n, labels) that sum to at most one."""
    which = torch.softmax(logits[:, :labels] / calibration.temperature, dim=1)
    if logits.shape[1] == labels:
        return which
    gate = torch.sigmoid(lead(logits, labels) * calibration.gate_scale + calibration.gate_shift)
    return which * gate
