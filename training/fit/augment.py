"""Augmentation: the same for images of a label and of other things, so that file formats are no clue."""

import io
import math
from functools import lru_cache

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from training.fit.recipe import Recipe


def augment(images: torch.Tensor, scenery: torch.Tensor, recipe: Recipe, random: torch.Generator) -> torch.Tensor:
    """Change a batch of images at random in ways that keep what they show.

    Parameters
    ----------
    images : torch.Tensor
        Shape (n, 3, edge, edge), float32, values 0 to 1.
    scenery : torch.Tensor
        Shape (m, 3, edge, edge), m at least 1: what may surround an image that is shown smaller.
    recipe : Recipe
        Shares and strengths.
    random : torch.Generator
        Source of every random number.

    Returns
    -------
    torch.Tensor
        Shape (n, 3, edge, edge), float32, values 0 to 1.
    """
    x = _move(images, scenery, recipe, random)
    x = _colour(x, recipe, random)
    x = _blur(x, recipe, random)
    return _noise(x, recipe, random).clamp(0, 1)


def compress(images: torch.Tensor, compressed: torch.Tensor, recipe: Recipe, random: torch.Generator) -> torch.Tensor:
    """Bring images to floats, with JPEG's marks in all of them, whatever format they came in.

    Images that have not been compressed once are now; then some of all are, once more. Otherwise the marks would
    be a clue where one label's images are PNG files and those of other things JPEG files.

    Parameters
    ----------
    images : torch.Tensor
        Shape (n, edge, edge, 3), dtype uint8.
    compressed : torch.Tensor
        Shape (n,), dtype bool: the pixels came out of a JPEG file as they are.
    recipe, random
        As for `augment`.

    Returns
    -------
    torch.Tensor
        Shape (n, 3, edge, edge), float32, values 0 to 1.
    """
    pixels = images.numpy().copy()
    for jpeg, chosen, (low, high) in (
        (_first_jpeg, ~compressed, recipe.first_jpeg_quality),
        (_jpeg, _chosen(len(images), recipe.jpeg_share, random), recipe.jpeg_quality),
    ):
        qualities = torch.randint(low, high + 1, (len(images),), generator=random).tolist()
        for index in chosen.nonzero().flatten().tolist():
            content = jpeg(pixels[index].tobytes(), images.shape[1], qualities[index])
            pixels[index] = np.frombuffer(content, np.uint8).reshape(pixels[index].shape)
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255


def _jpeg(pixels: bytes, edge: int, quality: int) -> bytes:
    """Compress and decompress an image's pixels (edge, edge, 3)."""
    file = io.BytesIO()
    Image.frombytes("RGB", (edge, edge), pixels).save(file, "JPEG", quality=quality)
    with Image.open(file) as decoded:
        return decoded.tobytes()


# The images of labels come round every epoch.
_first_jpeg = lru_cache(maxsize=1 << 15)(_jpeg)


def textures(x: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    """Make pictures of nothing in particular: strong enlargements, halves of two images, shuffled quarters.

    Parameters
    ----------
    x : torch.Tensor
        Shape (n, 3, edge, edge): images of other things.
    random : torch.Generator
        Source of every random number.

    Returns
    -------
    torch.Tensor
        The same shape.
    """
    edge = x.shape[-1]
    result = x.clone()
    for i, draw in enumerate(torch.rand(len(x), generator=random).tolist()):
        if draw < 0.4:
            side = _between(edge // 4, edge * 9 // 16, random)
            top, left = (_between(0, edge - side, random) for _ in range(2))
            part = x[i : i + 1, :, top : top + side, left : left + side]
            result[i] = functional.interpolate(part, (edge, edge), mode="bilinear", antialias=True)[0]
        elif draw < 0.7:
            other, cut = x[_between(0, len(x) - 1, random)], _between(edge // 4, edge * 3 // 4, random)
            if draw < 0.55:
                result[i, :, cut:] = other[:, cut:]
            else:
                result[i, :, :, cut:] = other[:, :, cut:]
        else:
            half = edge // 2
            corners = [(top, left) for top in (0, half) for left in (0, half)]
            for (top, left), j in zip(corners, torch.randperm(4, generator=random).tolist(), strict=True):
                above, before = corners[j]
                result[i, :, top : top + half, left : left + half] = x[
                    i, :, above : above + half, before : before + half
                ]
    return result


def _between(low: int, high: int, random: torch.Generator) -> int:
    return int(torch.randint(low, high + 1, (), generator=random))


def _chosen(n: int, share: float, random: torch.Generator) -> torch.Tensor:
    return torch.rand(n, generator=random) < share


def _drawn(n: int, low: float, high: float, random: torch.Generator) -> torch.Tensor:
    """Draw n numbers evenly from low to high."""
    return low + (high - low) * torch.rand(n, generator=random)


def _spread(n: int, limit: float, random: torch.Generator) -> torch.Tensor:
    """Draw n numbers evenly from -limit to limit."""
    return _drawn(n, -limit, limit, random)


def _move(x: torch.Tensor, scenery: torch.Tensor, recipe: Recipe, random: torch.Generator) -> torch.Tensor:
    """Mirror, rotate, shear, shift, zoom and squeeze; fill what lies outside in one of three ways."""
    n = len(x)
    moved = _chosen(n, recipe.move_share, random).float()
    nearest, farthest = (math.log(scale) for scale in reversed(recipe.scale))
    usual = _drawn(n, farthest, nearest, random)
    far = _drawn(n, math.log(recipe.far_scale), farthest, random)
    scale = (torch.where(_chosen(n, recipe.far_share, random), far, usual) * moved).exp()
    squeeze = (_spread(n, recipe.aspect, random) * moved).exp()
    angle = _spread(n, math.radians(recipe.rotation_degrees), random) * moved
    shear = _spread(n, recipe.shear, random) * moved
    mirror = torch.where(_chosen(n, 0.5, random), -1.0, 1.0)
    # The sampling grid runs from -1 to 1, so a fraction of the edge counts double. What is small may be anywhere.
    room = 2 * recipe.shift + 0.7 * (1 - scale).clamp(min=0)
    right, down = (_spread(n, 1, random) * room * moved / scale for _ in range(2))
    wide, high = 1 / (scale * squeeze), squeeze / scale
    cos, sin = angle.cos(), angle.sin()
    theta = torch.stack(
        [
            torch.stack([mirror * wide * cos, high * (shear - sin), right], dim=1),
            torch.stack([mirror * wide * (shear + sin), high * cos, down], dim=1),
        ],
        dim=1,
    )
    grid = functional.affine_grid(theta, list(x.shape), align_corners=False)
    way = torch.rand(n, generator=random)
    result = torch.empty_like(x)
    for padding, chosen in (
        ("reflection", way < 0.4),
        ("border", (way >= 0.4) & (way < 0.7)),
        ("zeros", way >= 0.7),
    ):
        if chosen.any():
            result[chosen] = functional.grid_sample(x[chosen], grid[chosen], padding_mode=padding, align_corners=False)
    framed = way >= 0.7
    m = int(framed.sum())
    if m:
        back = scenery[torch.randint(len(scenery), (m,), generator=random)]
        plain = _chosen(m, 0.4, random).float().view(-1, 1, 1, 1)
        back = back * (1 - plain) + torch.rand((m, 3, 1, 1), generator=random) * plain
        # 1 inside the moved frame, 0 outside, with a seam of one pixel.
        beyond = grid[framed].abs().amax(dim=3)
        inside = ((1 - beyond) * x.shape[-1] / 2 * scale[framed].view(-1, 1, 1) + 0.5).clamp(0, 1).unsqueeze(1)
        result[framed] = result[framed] * inside + back * (1 - inside)
    return result


def _colour(x: torch.Tensor, recipe: Recipe, random: torch.Generator) -> torch.Tensor:
    n = len(x)
    active = _chosen(n, recipe.colour_share, random).float()
    saturation = 1 + _spread(n, recipe.saturation, random) * active
    saturation[_chosen(n, recipe.grey_share, random)] = 0
    contrast = torch.where(
        _chosen(n, recipe.faint_share, random),
        _drawn(n, *recipe.faint_contrast, random),
        1 + _spread(n, recipe.contrast, random) * active,
    )
    brightness = _spread(n, recipe.brightness, random) * active
    tint = _spread(3 * n, recipe.tint, random).view(n, 3, 1, 1) * active.view(-1, 1, 1, 1)
    grey = x.mean(dim=1, keepdim=True)
    x = grey + (x - grey) * saturation.view(-1, 1, 1, 1)
    mean = x.mean(dim=(1, 2, 3), keepdim=True)
    return (mean + (x - mean) * contrast.view(-1, 1, 1, 1) + brightness.view(-1, 1, 1, 1) + tint).clamp(0, 1)


def _blur(x: torch.Tensor, recipe: Recipe, random: torch.Generator) -> torch.Tensor:
    chosen = _chosen(len(x), recipe.blur_share, random)
    n = int(chosen.sum())
    if n:
        sigma = _drawn(n, 0.2, recipe.blur_sigma, random)
        lines = torch.exp(-0.5 * (torch.arange(-3, 4) / sigma.unsqueeze(1)) ** 2)
        lines = (lines / lines.sum(dim=1, keepdim=True)).repeat_interleave(3, dim=0)
        y = functional.pad(x[chosen], (3, 3, 3, 3), mode="reflect").flatten(0, 1).unsqueeze(0)
        y = functional.conv2d(y, lines.view(-1, 1, 1, 7), groups=3 * n)
        x[chosen] = functional.conv2d(y, lines.view(-1, 1, 7, 1), groups=3 * n).view(n, *x.shape[1:])
    return x


def _noise(x: torch.Tensor, recipe: Recipe, random: torch.Generator) -> torch.Tensor:
    n = len(x)
    sigma = _drawn(n, 0, recipe.noise_sigma, random) * _chosen(n, recipe.noise_share, random)
    return x + torch.randn(x.shape, generator=random) * sigma.view(-1, 1, 1, 1)
