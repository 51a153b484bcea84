"""What the report pages share: style, scrolling tables and thumbnails."""

import base64
import io
from pathlib import Path

from PIL import Image

#: Longest side of a thumbnail, in pixels.
THUMBNAIL = 192
#: The pages' style sheet, with the colours that `common.plots` uses.
STYLE = Path(__file__).with_suffix(".css").read_text()


def scrolling(label: str, table: str) -> str:
    """Wrap a table so that a narrow screen scrolls it, by keyboard too, and not the page."""
    return f'<div class="scroll" role="region" aria-label="{label}" tabindex="0"><table>{table}</table></div>'


def thumbnail(picture: Image.Image) -> tuple[str, str]:
    """Return a data URI, and whether the picture is ``fine`` or of ``coarse`` pixels that should stay squares.

    Parameters
    ----------
    picture : PIL.Image.Image
        Mode RGB; it is shrunk in place.
    """
    kind = "fine" if max(picture.size) >= THUMBNAIL // 2 else "coarse"
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    file = io.BytesIO()
    if kind == "fine":
        picture.save(file, "JPEG", quality=80)
    else:
        picture.save(file, "PNG")
    form = Image.open(file).get_format_mimetype()
    return f"data:{form};base64,{base64.b64encode(file.getvalue()).decode()}", kind
