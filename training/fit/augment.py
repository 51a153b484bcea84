"""Augmentation: the same for labels and background, so that the file format does not predict the class."""

import io
import math
from functools import lru_cache

import numpy as np
import torch
from PIL import Image
from torch.nn import functional

from training.fit.recipe import Recipe

# The largest images whose first compression is remembered, in pixels.
_CACHED_EDGE = 64


def augment(images: torch.Tensor, scenery: torch.Tensor, recipe: Recipe, random: torch.Generator) -> torch.Tensor:
    """Change a batch of images at random, without changing their class.

    Parameters
    ----------
    images : torch.Tensor
        Shape (n, 3, edge, edge), float32, values 0 to 1.
    scenery : torch.Tensor
        Shape (m, 3, edge, edge), m at least 1: images that may surround one that is shown smaller.
    recipe : Recipe
        Probabilities and strengths.
    random : torch.Generator
        Source of every random number.

    Returns
    -------
    torch.Tensor
        Shape (n, 3, edge, edge) with the edge of training, float32, values 0 to 1.
    """
    x = _move(images, scenery, recipe, random)
    x = _colour(x, recipe, random)
    x = _blur(x, recipe, random)
    x = _sharpen(x, recipe, random)
    return _noise(x, recipe, random).clamp(0, 1)


def compress(
    images: list[torch.Tensor], compressed: torch.Tensor, recipe: Recipe, random: torch.Generator
) -> torch.Tensor:
    """Convert images to floats, with JPEG artefacts in all of them, whatever their file format was.

    Images that were never compressed are compressed now, then some of all images once more. Otherwise the artefacts
    would predict the class where a label's images are PNG files and background images are JPEG files.

    Parameters
    ----------
    images : list of torch.Tensor
        Each of shape (edge, edge, 3), dtype uint8.
    compressed : torch.Tensor
        Shape (n,), dtype bool: the pixels come from a JPEG file, not resized.
    recipe, random
        As for `augment`.

    Returns
    -------
    torch.Tensor
        Shape (n, 3, edge, edge) with the largest edge, float32, values 0 to 1.
    """
    pixels = [image.numpy() for image in images]
    for jpeg, chosen, (low, high) in (
        (_first_jpeg, ~compressed, recipe.first_jpeg_quality),
        (_jpeg, _chosen(len(images), recipe.jpeg_probability, random), recipe.jpeg_quality),
    ):
        qualities = torch.randint(low, high + 1, (len(images),), generator=random).tolist()
        for index in chosen.nonzero().flatten().tolist():
            edge = len(pixels[index])
            content = (jpeg if edge <= _CACHED_EDGE else _jpeg)(pixels[index].tobytes(), edge, qualities[index])
            pixels[index] = np.frombuffer(content, np.uint8).reshape(pixels[index].shape)
    edge = max(map(len, pixels))
    # Where all images have one size, `augment` draws how to enlarge them.
    kinds = len(recipe.enlarging)
    mixed = kinds > 1 and edge != min(map(len, pixels))
    kind = torch.randint(kinds, (len(pixels),), generator=random).tolist() if mixed else [0] * len(pixels)
    floats = (torch.tensor(x).permute(2, 0, 1)[None].float() / 255 for x in pixels)
    resized = [_resize(x, edge, recipe.enlarging[i]) for x, i in zip(floats, kind, strict=True)]
    return torch.cat(resized).clamp(0, 1)


def _resize(x: torch.Tensor, edge: int, mode: str = "bilinear") -> torch.Tensor:
    """Resize images (n, 3, old edge, old edge)."""
    if x.shape[-1] == edge:
        return x
    return functional.interpolate(x, (edge, edge), mode=mode, antialias=mode != "nearest")


def _jpeg(pixels: bytes, edge: int, quality: int) -> bytes:
    """Compress and decompress an image's pixels (edge, edge, 3)."""
    file = io.BytesIO()
    Image.frombytes("RGB", (edge, edge), pixels).save(file, "JPEG", quality=quality)
    with Image.open(file) as decoded:
        return decoded.tobytes()


# Images with a label repeat every epoch. A cache full of larger ones could take gigabytes.
_first_jpeg = lru_cache(maxsize=1 << 15)(_jpeg)


def synthetic_negatives(x: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    """Make images without a recognisable object: strong enlargements, halves of two images, shuffled quarters.

    Parameters
    ----------
    x : torch.Tensor
        Shape (n, 3, edge, edge): background images.
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


def _chosen(n: int, probability: float, random: torch.Generator) -> torch.Tensor:
    return torch.rand(n, generator=random) < probability


def _drawn(n: int, low: float, high: float, random: torch.Generator) -> torch.Tensor:
    """Draw n numbers evenly from low to high."""
    return low + (high - low) * torch.rand(n, generator=random)


def _spread(n: int, limit: float, random: torch.Generator) -> torch.Tensor:
    """Draw n numbers evenly from -limit to limit."""
    return _drawn(n, -limit, limit, random)


def _move(x: torch.Tensor, scenery: torch.Tensor, recipe: Recipe, random: torch.Generator) -> torch.Tensor:
    """Mirror, rotate, shear, shift, zoom and squeeze; fill the area outside in one of three ways."""
    n = len(x)
    moved = _chosen(n, recipe.move_probability, random).float()
    nearest, farthest = (math.log(scale) for scale in reversed(recipe.scale))
    usual = _drawn(n, farthest, nearest, random)
    far = _drawn(n, math.log(recipe.far_scale), farthest, random)
    scale = (torch.where(_chosen(n, recipe.far_probability, random), far, usual) * moved).exp()
    squeeze = (_spread(n, recipe.aspect, random) * moved).exp()
    angle = _spread(n, math.radians(recipe.rotation_degrees), random) * moved
    shear = _spread(n, recipe.shear, random) * moved
    mirror = torch.where(_chosen(n, 0.5, random), -1.0, 1.0)
    # The sampling grid runs from -1 to 1, so a fraction of the edge counts double. Small images may be anywhere.
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
    edge = recipe.training_size or recipe.input_size
    grid = functional.affine_grid(theta, [n, 3, edge, edge], align_corners=False)
    way = torch.rand(n, generator=random)
    # No number is drawn where there is no choice.
    kinds = len(recipe.enlarging)
    kind = torch.randint(kinds, (n,), generator=random) if kinds > 1 else torch.zeros(n, dtype=torch.long)
    result = torch.empty(n, 3, edge, edge)
    for padding, chosen in (
        ("reflection", way < 0.4),
        ("border", (way >= 0.4) & (way < 0.7)),
        ("zeros", way >= 0.7),
    ):
        for i, mode in enumerate(recipe.enlarging):
            these = chosen & (kind == i)
            if these.any():
                result[these] = functional.grid_sample(x[these], grid[these], mode, padding, align_corners=False)
    framed = way >= 0.7
    m = int(framed.sum())
    if m:
        back = _resize(scenery[torch.randint(len(scenery), (m,), generator=random)], edge)
        plain = _chosen(m, 0.4, random).float().view(-1, 1, 1, 1)
        back = back * (1 - plain) + torch.rand((m, 3, 1, 1), generator=random) * plain
        # 1 inside the moved frame, 0 outside, with a seam of one pixel.
        beyond = grid[framed].abs().amax(dim=3)
        inside = ((1 - beyond) * edge / 2 * scale[framed].view(-1, 1, 1) + 0.5).clamp(0, 1).unsqueeze(1)
        result[framed] = result[framed] * inside + back * (1 - inside)
    return result


def _colour(x: torch.Tensor, recipe: Recipe, random: torch.Generator) -> torch.Tensor:
    n = len(x)
    active = _chosen(n, recipe.colour_probability, random).float()
    saturation = 1 + _spread(n, recipe.saturation, random) * active
    saturation[_chosen(n, recipe.grey_probability, random)] = 0
    contrast = torch.where(
        _chosen(n, recipe.faint_probability, random),
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
    chosen = _chosen(len(x), recipe.blur_probability, random)
    n = int(chosen.sum())
    if n:
        sigma = _drawn(n, 0.2, recipe.blur_sigma, random)
        lines = torch.exp(-0.5 * (torch.arange(-3, 4) / sigma.unsqueeze(1)) ** 2)
        lines = (lines / lines.sum(dim=1, keepdim=True)).repeat_interleave(3, dim=0)
        y = functional.pad(x[chosen], (3, 3, 3, 3), mode="reflect").flatten(0, 1).unsqueeze(0)
        y = functional.conv2d(y, lines.view(-1, 1, 1, 7), groups=3 * n)
        x[chosen] = functional.conv2d(y, lines.view(-1, 1, 7, 1), groups=3 * n).view(n, *x.shape[1:])
    return x


def _sharpen(x: torch.Tensor, recipe: Recipe, random: torch.Generator) -> torch.Tensor:
    if recipe.sharpen_probability:
        chosen = _chosen(len(x), recipe.sharpen_probability, random)
        amount = _drawn(len(x), 0, recipe.sharpen_strength, random)[chosen].view(-1, 1, 1, 1)
        y = x[chosen]
        x[chosen] = y + (y - functional.avg_pool2d(functional.pad(y, (2, 2, 2, 2), mode="replicate"), 5, 1)) * amount
    return x


def _noise(x: torch.Tensor, recipe: Recipe, random: torch.Generator) -> torch.Tensor:
    n, edge = len(x), x.shape[-1]
    sigma = _drawn(n, 0, recipe.noise_sigma, random) * _chosen(n, recipe.noise_probability, random)
    grains = recipe.noise_grains
    which = torch.randint(len(grains), (n,), generator=random) if len(grains) > 1 else torch.zeros(n)
    noise = torch.zeros_like(x)
    for i, grain in enumerate(grains):
        these = which == i
        drawn = torch.randn((int(these.sum()), 3, -(-edge // grain), -(-edge // grain)), generator=random)
        noise[these] = drawn.repeat_interleave(grain, 2).repeat_interleave(grain, 3)[:, :, :edge, :edge]
    return x + noise * sigma.view(-1, 1, 1, 1)
