"""Pages from Jinja2 templates, which lie beside the modules that fill them, and thumbnails for them."""

import base64
import hashlib
import io
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

#: Longest side of a thumbnail, in pixels.
THUMBNAIL = 192


def _sha256(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


_TEMPLATES = Environment(
    loader=FileSystemLoader(Path(__file__).parents[1]),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
# A script's hash, for a content security policy.
_TEMPLATES.filters["sha256"] = _sha256


class Thumbnail(NamedTuple):
    """A data URI; ``kind`` is ``fine``, or ``coarse`` for an image whose pixels should stay squares when enlarged."""

    uri: str
    kind: str


def render_template(name: str, **values: Any) -> str:
    """Return a page. Every value is escaped unless it is a `markupsafe.Markup`.

    Parameters
    ----------
    name : str
        Path of the template in the repository, such as ``monitoring/report.html``.
    values
        Variables of the template.
    """
    return _TEMPLATES.get_template(name).render(values)


def thumbnail(picture: Image.Image) -> Thumbnail:
    """Shrink an image in place, and return it for use in a page.

    Parameters
    ----------
    picture : PIL.Image.Image
        Mode RGB.
    """
    kind = "fine" if max(picture.size) >= THUMBNAIL // 2 else "coarse"
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    file = io.BytesIO()
    if kind == "fine":
        picture.save(file, "JPEG", quality=80)
    else:
        picture.save(file, "PNG")
    form = Image.open(file).get_format_mimetype()
    return Thumbnail(f"data:{form};base64,{base64.b64encode(file.getvalue()).decode()}", kind)
