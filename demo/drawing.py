"""Drawings of vehicles and houses, for when there are no photos."""

import io
import math
import random

from PIL import Image, ImageDraw, ImageFilter

#: Drawn at this multiple and shrunk, for smooth edges.
OVERSAMPLING = 4

Point = tuple[float, float]
Colour = tuple[int, int, int]


class Canvas:
    """A drawing surface whose coordinates run from 0 to 1 in both directions."""

    def __init__(self, width: int, height: int, seed: int) -> None:
        self.random = random.Random(seed)
        self.size = (width, height)
        scale = max(1, min(OVERSAMPLING, 4096 // max(width, height)))
        self._large = (width * scale, height * scale)
        self.image = Image.new("RGB", self._large)
        self._draw = ImageDraw.Draw(self.image)
        self._background()

    def _background(self) -> None:
        """Sky over ground, with a soft horizon and a little texture."""
        sky = tuple(self.random.randint(170, 235) for _ in range(3))
        ground = tuple(self.random.randint(90, 160) for _ in range(3))
        small = Image.new("RGB", (16, 16))
        for y in range(16):
            share = min(1.0, max(0.0, (y - 7.5) / 3 + 0.5))
            for x in range(16):
                shade = self.random.randint(-10, 10)
                mixed = [round(a * (1 - share) + b * share) + shade for a, b in zip(sky, ground, strict=True)]
                small.putpixel((x, y), (mixed[0], mixed[1], mixed[2]))
        self.image.paste(small.resize(self._large, Image.Resampling.BICUBIC))

    def _at(self, point: Point) -> Point:
        return point[0] * self._large[0], point[1] * self._large[1]

    def line(self, points: list[Point], colour: Colour, width: float) -> None:
        """Draw a line with round joints; its width is a fraction of the shorter side."""
        thickness = max(1, round(width * min(self._large)))
        placed = [self._at(point) for point in points]
        self._draw.line(placed, fill=colour, width=thickness, joint="curve")
        for x, y in placed:
            radius = thickness / 2
            self._draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)

    def polygon(self, points: list[Point], colour: Colour) -> None:
        """Fill a polygon."""
        self._draw.polygon([self._at(point) for point in points], fill=colour)

    def wheel(self, centre: Point, radius: float, colour: Colour, width: float, spokes: int = 0) -> None:
        """Draw a ring, with spokes; lengths are fractions of the shorter side."""
        x, y = self._at(centre)
        length = radius * min(self._large)
        thickness = max(1, round(width * min(self._large)))
        self._draw.ellipse((x - length, y - length, x + length, y + length), outline=colour, width=thickness)
        for number in range(spokes):
            angle = math.tau * number / spokes
            end = (x + length * math.cos(angle), y + length * math.sin(angle))
            self._draw.line([(x, y), end], fill=colour, width=max(1, thickness // 6))

    def disc(self, centre: Point, radius: float, colour: Colour) -> None:
        """Fill a circle; its radius is a fraction of the shorter side."""
        x, y = self._at(centre)
        length = radius * min(self._large)
        self._draw.ellipse((x - length, y - length, x + length, y + length), fill=colour)

    def finish(self) -> Image.Image:
        """Return the image at its final size, with a little noise like a camera's."""
        image = self.image.resize(self.size, Image.Resampling.LANCZOS)
        noise = Image.frombytes("L", self.size, self.random.randbytes(self.size[0] * self.size[1])).convert("RGB")
        return Image.blend(image, noise, 0.02).filter(ImageFilter.GaussianBlur(0.3))


def encoded(image: Image.Image, file_format: str = "PNG", **options: object) -> bytes:
    """Return a picture as a file's content; options are those of :meth:`PIL.Image.Image.save`."""
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """Draw random pixels."""
    return Image.frombytes("RGB", (width, height), random.Random(seed).randbytes(3 * width * height))


def bicycle(width: int, height: int, seed: int = 0) -> Image.Image:
    """Draw a bicycle from the side.

    Parameters
    ----------
    width, height : int
        Size in pixels.
    seed : int
        Chooses colours and small differences.
    """
    canvas = Canvas(width, height, seed)
    dark: Colour = (25, 25, 30)
    frame: Colour = canvas.random.choice([(180, 30, 30), (30, 60, 160), (20, 110, 60), (40, 40, 40)])
    rear, front, radius = (0.26, 0.66), (0.76, 0.66), 0.19
    canvas.wheel(rear, radius, dark, 0.02, spokes=14)
    canvas.wheel(front, radius, dark, 0.02, spokes=14)
    pedals, seat, head = (0.47, 0.67), (0.40, 0.40), (0.68, 0.38)
    canvas.line([rear, pedals, head, seat, rear], frame, 0.025)
    canvas.line([pedals, seat, (0.385, 0.33)], frame, 0.025)
    canvas.line([head, front], frame, 0.025)
    canvas.line([head, (0.67, 0.30), (0.74, 0.29)], dark, 0.022)
    canvas.line([(0.33, 0.33), (0.43, 0.33)], dark, 0.035)
    canvas.wheel(pedals, 0.045, dark, 0.015)
    canvas.line([(0.44, 0.74), (0.50, 0.60)], dark, 0.015)
    return canvas.finish()


def motorcycle(width: int, height: int, seed: int = 0) -> Image.Image:
    """Draw a motorcycle from the side; parameters as in :func:`bicycle`."""
    canvas = Canvas(width, height, seed)
    dark: Colour = (20, 20, 24)
    paint: Colour = canvas.random.choice([(170, 20, 20), (20, 40, 140), (15, 15, 18), (190, 110, 10)])
    metal: Colour = (130, 132, 138)
    rear, front = (0.24, 0.68), (0.78, 0.68)
    for centre in (rear, front):
        canvas.disc(centre, 0.17, dark)
        canvas.disc(centre, 0.10, metal)
        canvas.disc(centre, 0.04, dark)
    canvas.polygon([(0.36, 0.52), (0.62, 0.50), (0.62, 0.72), (0.40, 0.74)], (60, 60, 64))
    canvas.disc((0.46, 0.63), 0.07, metal)
    canvas.disc((0.57, 0.62), 0.06, metal)
    canvas.line([(0.20, 0.74), (0.48, 0.76)], metal, 0.04)
    canvas.polygon([(0.42, 0.38), (0.62, 0.34), (0.68, 0.44), (0.60, 0.52), (0.42, 0.50)], paint)
    canvas.polygon([(0.16, 0.42), (0.42, 0.40), (0.44, 0.50), (0.22, 0.50)], dark)
    canvas.polygon([(0.12, 0.48), (0.30, 0.46), (0.34, 0.54), (0.20, 0.56)], paint)
    canvas.line([(0.66, 0.36), front], metal, 0.035)
    canvas.polygon([(0.64, 0.52), (0.80, 0.46), (0.92, 0.56), (0.78, 0.54)], paint)
    canvas.disc((0.70, 0.37), 0.05, (225, 225, 210))
    canvas.line([(0.66, 0.36), (0.60, 0.28), (0.56, 0.29)], dark, 0.03)
    return canvas.finish()


def house(width: int, height: int, seed: int = 0) -> Image.Image:
    """Draw a house, which has neither label; parameters as in :func:`bicycle`."""
    canvas = Canvas(width, height, seed)
    wall: Colour = canvas.random.choice([(200, 180, 150), (170, 90, 70), (220, 220, 210)])
    canvas.polygon([(0.22, 0.45), (0.78, 0.45), (0.78, 0.80), (0.22, 0.80)], wall)
    canvas.polygon([(0.16, 0.46), (0.50, 0.20), (0.84, 0.46)], (120, 50, 40))
    canvas.polygon([(0.44, 0.60), (0.56, 0.60), (0.56, 0.80), (0.44, 0.80)], (80, 55, 40))
    for x in (0.29, 0.63):
        canvas.polygon([(x, 0.53), (x + 0.09, 0.53), (x + 0.09, 0.64), (x, 0.64)], (120, 160, 190))
    return canvas.finish()


def blurred(width: int, height: int, seed: int = 0) -> Image.Image:
    """Draw a bicycle too blurred to recognize; parameters as in :func:`bicycle`."""
    return bicycle(width, height, seed).filter(ImageFilter.GaussianBlur(min(width, height) / 10))
