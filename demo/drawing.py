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
    black, rubber, shadow = (18, 18, 20), (28, 28, 30), (70, 70, 70)
    chrome, steel, dark = (175, 178, 184), (105, 108, 114), (62, 64, 68)
    paint: Colour = canvas.random.choice([(170, 20, 20), (20, 40, 140), (15, 15, 18), (190, 110, 10)])
    shine: Colour = (paint[0] + 60, paint[1] + 60, paint[2] + 60)

    def line(points: list[Point], colour: Colour, thickness: float) -> None:
        canvas.line([inside(point) for point in points], colour, thickness)

    def polygon(points: list[Point], colour: Colour) -> None:
        canvas.polygon([inside(point) for point in points], colour)

    def inside(point: Point) -> Point:
        """Keep the proportions in wide and tall images: a square in the middle."""
        edge = min(width, height)
        return 0.5 + (point[0] - 0.5) * edge / width, 0.5 + (point[1] - 0.5) * edge / height

    rear, front = (0.20, 0.68), (0.82, 0.68)
    polygon([(0.08, 0.86), (0.92, 0.86), (0.97, 0.895), (0.03, 0.895)], shadow)
    for axle in (inside(rear), inside(front)):
        canvas.disc(axle, 0.185, rubber)
        canvas.disc(axle, 0.125, (150, 152, 150))
        canvas.wheel(axle, 0.125, chrome, 0.014)
        canvas.wheel(axle, 0.12, dark, 0.012, spokes=10)
        canvas.disc(axle, 0.05, steel)
        canvas.wheel(axle, 0.075, chrome, 0.008)
        canvas.disc(axle, 0.02, black)
    # Swing arm and frame
    line([rear, (0.46, 0.66)], steel, 0.03)
    line([(0.30, 0.50), rear], chrome, 0.018)
    polygon([(0.40, 0.50), (0.66, 0.48), (0.66, 0.66), (0.60, 0.76), (0.42, 0.76), (0.37, 0.66)], (48, 48, 52))
    # Engine and exhaust
    polygon([(0.46, 0.48), (0.58, 0.47), (0.60, 0.62), (0.47, 0.63)], steel)
    for fin in range(6):
        y = 0.485 + 0.024 * fin
        line([(0.455, y), (0.60, y - 0.008)], chrome if fin % 2 else dark, 0.008)
    for centre, radius in (((0.45, 0.67), 0.065), ((0.57, 0.68), 0.055)):
        canvas.disc(inside(centre), radius, chrome)
        canvas.disc(inside(centre), radius * 0.7, steel)
    line([(0.60, 0.55), (0.67, 0.62), (0.62, 0.755), (0.42, 0.765)], chrome, 0.02)
    line([(0.42, 0.765), (0.10, 0.735)], chrome, 0.042)
    line([(0.40, 0.757), (0.12, 0.727)], (225, 228, 232), 0.01)
    # Tank, seat, side panel, rear fender and light
    polygon([(0.44, 0.46), (0.45, 0.38), (0.52, 0.335), (0.62, 0.33), (0.68, 0.37), (0.70, 0.42), (0.62, 0.48)], paint)
    polygon([(0.48, 0.385), (0.54, 0.35), (0.62, 0.345), (0.65, 0.365), (0.55, 0.375)], shine)
    polygon(
        [(0.46, 0.46), (0.45, 0.41), (0.36, 0.425), (0.25, 0.395), (0.17, 0.40), (0.18, 0.44), (0.30, 0.475)], black
    )
    polygon([(0.30, 0.475), (0.44, 0.47), (0.42, 0.56), (0.33, 0.56)], paint)
    polygon(
        [(0.05, 0.60), (0.07, 0.52), (0.14, 0.465), (0.26, 0.465), (0.30, 0.50), (0.20, 0.495), (0.11, 0.53)], paint
    )
    canvas.disc(inside((0.10, 0.47)), 0.022, (190, 30, 30))
    # Fork, front fender, headlight, handlebar and mirror
    line([(0.66, 0.30), front], chrome, 0.03)
    line([(0.685, 0.33), (0.83, 0.66)], steel, 0.012)
    fender = [(0.67, 0.56), (0.73, 0.49), (0.82, 0.475), (0.92, 0.51), (0.99, 0.60)]
    polygon([*fender, (0.91, 0.54), (0.82, 0.51), (0.74, 0.53)], paint)
    canvas.disc(inside((0.725, 0.385)), 0.055, dark)
    canvas.disc(inside((0.74, 0.385)), 0.044, (235, 235, 220))
    line([(0.66, 0.31), (0.63, 0.25), (0.55, 0.255)], black, 0.022)
    line([(0.56, 0.255), (0.50, 0.27)], rubber, 0.032)
    line([(0.64, 0.26), (0.66, 0.19)], steel, 0.01)
    canvas.disc(inside((0.665, 0.18)), 0.028, steel)
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
