"""Images as the workflow sends them to the endpoint, by the code of the serialize function."""

from src.serialize.decoder import decode
from src.serialize.encoder import encode

#: Longest side in pixels: the default of the stack's parameter MaxEdge.
SENT_EDGE = 224


def as_sent(content: bytes) -> bytes:
    """Shrink and encode an image file as the workflow does before the endpoint sees it.

    Parameters
    ----------
    content : bytes
        The image file, of any format that the workflow accepts.

    Returns
    -------
    bytes
        A PNG or JPEG file of at most `SENT_EDGE` pixels a side.

    Raises
    ------
    ImageError
        As `src.serialize.decoder.decode`.
    """
    return encode(decode(content, max_edge=SENT_EDGE).image, original=content)[0]
