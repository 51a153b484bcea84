"""The network: small, residual, with a first layer that whitens; and the form in which it is served."""

import torch
from torch import nn
from torch.nn import functional

# The norm of the last layer's input is far above one; this keeps the first logits small, so that the softmax
# is not saturated when training begins.
_LOGIT_SCALE = 1 / 9


class _Group(nn.Module):
    """Halve the image, then three convolutions with a way around the last two."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.third = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(outputs)
        self.second_norm = nn.BatchNorm2d(outputs)
        self.third_norm = nn.BatchNorm2d(outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.gelu(self.first_norm(functional.max_pool2d(self.first(x), 2)))
        around = x
        x = functional.gelu(self.second_norm(self.second(x)))
        return functional.gelu(self.third_norm(self.third(x)) + around)


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
        self.whiten = nn.Conv2d(3, 24, 2)
        self.whiten.weight.requires_grad = False
        self.groups = nn.Sequential(*(_Group(a, b) for a, b in zip((24, *widths[:-1]), widths, strict=True)))
        self.head = nn.Linear(widths[-1], outputs, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images (batch, 3, edge, edge), 0 to 1, to logits (batch, outputs)."""
        x = functional.gelu(self.whiten(x - 0.5))
        return self.head(self.groups(x).amax(dim=(2, 3))) * _LOGIT_SCALE

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
            assert self.whiten.bias is not None
            self.whiten.bias.zero_()


class ServedModel(nn.Module):
    """What the endpoint runs: from stored pixels to one probability per label.

    The image and its mirror image are both looked at. An output beyond the labels ("neither") takes part in
    the softmax and is then left out, so the probabilities sum to at most one.

    Parameters
    ----------
    network : Network
        Trained, one output per label, then perhaps "neither".
    labels : int
        How many outputs are labels.
    temperature : float
        Logits are divided by it (Guo et al. 2017, https://arxiv.org/abs/1706.04599).
    """

    def __init__(self, network: Network, labels: int, temperature: float) -> None:
        super().__init__()
        self.network = network
        self.labels = labels
        self.temperature = temperature

    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """Map uint8 (batch, edge, edge, 3) to the mean logits of both views, before the temperature."""
        x = images.permute(0, 3, 1, 2).float() / 255
        # One pass over a double batch keeps a single copy of the weights in the exported graph.
        plain, mirrored = self.network(torch.cat([x, x.flip(3)])).chunk(2)
        return (plain + mirrored) / 2

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Map uint8 (batch, edge, edge, 3) to probabilities (batch, labels)."""
        return torch.softmax(self.logits(images) / self.temperature, dim=1)[:, : self.labels]
