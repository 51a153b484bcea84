"""A contact sheet: every image of the demo with its outcome."""

import io
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont, ImageOps

from common.outcomes import COLOURS

INK, PAPER, GREY = (32, 33, 36), (255, 255, 255), (95, 99, 104)
TILE = 200


def draw_contact_sheet(rows: list[dict[str, Any]], path: Path, columns: int = 5) -> None:
    """Draw a thumbnail of each image with its outcome.

    Parameters
    ----------
    rows : list of dict
        ``data`` (bytes or None), ``outcome``, ``subtitle``, and ``what`` is shown in place of data that are no image.
    path : Path
        PNG file to write.
    columns : int
        Thumbnails in a row.
    """
    height = TILE + 52
    lines = -(-len(rows) // columns)
    # Transparent between the tiles, so that it suits light and dark pages.
    sheet = Image.new("RGBA", (columns * (TILE + 16) + 16, lines * (height + 16) + 16))
    draw = ImageDraw.Draw(sheet)
    for number, row in enumerate(rows):
        x, y = 16 + number % columns * (TILE + 16), 16 + number // columns * (height + 16)
        draw.rounded_rectangle((x - 6, y - 6, x + TILE + 6, y + height + 2), 8, COLOURS[row["outcome"]])
        thumbnail = _thumbnail(row["data"], row["what"])
        sheet.paste(thumbnail, (x + (TILE - thumbnail.width) // 2, y + (TILE - thumbnail.height) // 2))
        draw.text((x + TILE // 2, y + TILE + 14), row["outcome"], PAPER, ImageFont.load_default(15), anchor="mm")
        draw.text((x + TILE // 2, y + TILE + 36), row["subtitle"], PAPER, ImageFont.load_default(12), anchor="mm")
    sheet.save(path)


def _thumbnail(data: bytes | None, what: str) -> Image.Image:
    try:
        image: Image.Image = Image.open(io.BytesIO(data or b""))
        image = ImageOps.exif_transpose(image).convert("RGB")
    except OSError:
        page = Image.new("RGB", (TILE * 3 // 4, TILE), PAPER)
        ImageDraw.Draw(page).text(
            (page.width // 2, page.height // 2), what, GREY, ImageFont.load_default(18), anchor="mm"
        )
        return page
    method = Image.Resampling.LANCZOS if max(image.size) > TILE else Image.Resampling.NEAREST
    return ImageOps.contain(image, (TILE, TILE), method)
