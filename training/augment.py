"""Augmentation: the same for images of a label and of other things, so that file formats are no clue."""

import io
import math

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from .recipe import Recipe


def augment(images: torch.Tensor, recipe: Recipe, random: torch.Generator) -> torch.Tensor:
    """Change a batch of images at random in ways that keep what they show.

    Parameters
    ----------
    images : torch.Tensor
        Shape (n, 3, edge, edge), dtype uint8.
    recipe : Recipe
        Shares and strengths.
    random : torch.Generator
        Source of every random number.

    Returns
    -------
    torch.Tensor
        Shape (n, 3, edge, edge), float32, values 0 to 1.
    """
    x = _jpeg(images, recipe, random).float() / 255
    x = _affine(x, recipe, random)
    x = _colour(x, recipe, random)
    x = _coarse(x, recipe, random)
    x = _blur(x, recipe, random)
    x = _noise(x, recipe, random)
    return x.clamp(0, 1)


def _chosen(n: int, share: float, random: torch.Generator) -> torch.Tensor:
    return torch.rand(n, generator=random) < share


def _spread(n: int, limit: float, random: torch.Generator) -> torch.Tensor:
    """Draw n numbers evenly from -limit to limit."""
    return (torch.rand(n, generator=random) * 2 - 1) * limit


def _jpeg(images: torch.Tensor, recipe: Recipe, random: torch.Generator) -> torch.Tensor:
    chosen = _chosen(len(images), recipe.jpeg_share, random).nonzero().flatten().tolist()
    low, high = recipe.jpeg_quality
    qualities = torch.randint(low, high + 1, (len(chosen),), generator=random).tolist()
    result = images.clone()
    for index, quality in zip(chosen, qualities, strict=True):
        file = io.BytesIO()
        Image.fromarray(images[index].permute(1, 2, 0).numpy()).save(file, "JPEG", quality=quality)
        with Image.open(file) as decoded:
            result[index] = torch.from_numpy(np.array(decoded)).permute(2, 0, 1)
    return result


def _affine(x: torch.Tensor, recipe: Recipe, random: torch.Generator) -> torch.Tensor:
    n = len(x)
    active = _chosen(n, recipe.affine_share, random).float()
    angle = _spread(n, math.radians(recipe.rotation_degrees), random) * active
    shear = _spread(n, recipe.shear, random) * active
    wide = 1 + _spread(n, recipe.scale, random) * active
    high = 1 + _spread(n, recipe.scale, random) * active
    # The sampling grid runs from -1 to 1, so a fraction of the edge counts double.
    right = _spread(n, 2 * recipe.shift, random) * active
    down = _spread(n, 2 * recipe.shift, random) * active
    mirror = torch.where(_chosen(n, 0.5, random), -1.0, 1.0)
    cos, sin = angle.cos(), angle.sin()
    theta = torch.stack(
        [
            torch.stack([mirror * wide * cos, wide * (shear * cos - sin), right], dim=1),
            torch.stack([mirror * high * sin, high * (shear * sin + cos), down], dim=1),
        ],
        dim=1,
    )
    grid = functional.affine_grid(theta, list(x.shape), align_corners=False)
    return functional.grid_sample(x, grid, padding_mode="reflection", align_corners=False)


def _colour(x: torch.Tensor, recipe: Recipe, random: torch.Generator) -> torch.Tensor:
    n = len(x)

    def factor(limit: float) -> torch.Tensor:
        return (1 + _spread(n, limit, random)).view(-1, 1, 1, 1)

    x = x * factor(recipe.brightness)
    x = (x - x.mean(dim=(1, 2, 3), keepdim=True)) * factor(recipe.contrast) + x.mean(dim=(1, 2, 3), keepdim=True)
    grey = x.mean(dim=1, keepdim=True)
    saturation = factor(recipe.saturation)
    saturation[_chosen(n, recipe.grey_share, random)] = 0
    return grey + (x - grey) * saturation


def _coarse(x: torch.Tensor, recipe: Recipe, random: torch.Generator) -> torch.Tensor:
    """Shrink some images and enlarge them again, as small pictures that were scaled up look."""
    chosen = _chosen(len(x), recipe.coarse_share, random)
    if chosen.any():
        low, high = recipe.coarse_size
        size = int(torch.randint(low, high + 1, (1,), generator=random))
        small = functional.interpolate(x[chosen], size=(size, size), mode="area")
        x[chosen] = functional.interpolate(small, size=x.shape[2:], mode="bilinear", align_corners=False)
    return x


def _blur(x: torch.Tensor, recipe: Recipe, random: torch.Generator) -> torch.Tensor:
    chosen = _chosen(len(x), recipe.blur_share, random)
    if chosen.any():
        sigma = 0.3 + (recipe.blur_sigma - 0.3) * float(torch.rand(1, generator=random))
        steps = torch.arange(-3, 4)
        line = torch.exp(-(steps**2) / (2 * sigma**2))
        line = line / line.sum()
        kernel = torch.outer(line, line).expand(3, 1, 7, 7)
        x[chosen] = functional.conv2d(functional.pad(x[chosen], (3, 3, 3, 3), mode="reflect"), kernel, groups=3)
    return x


def _noise(x: torch.Tensor, recipe: Recipe, random: torch.Generator) -> torch.Tensor:
    n = len(x)
    sigma = torch.rand(n, generator=random) * recipe.noise_sigma * _chosen(n, recipe.noise_share, random)
    return x + torch.randn(x.shape, generator=random) * sigma.view(-1, 1, 1, 1)
