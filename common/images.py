"""Images as the workflow sends them to the endpoint, made by the code of the serialize function."""

from src.serialize.decoder import decode
from src.serialize.encoder import encode

#: Longest side in pixels; the default of the stack's parameter MaxEdge.
SENT_EDGE = 224


def as_sent(content: bytes) -> bytes:
    """Shrink and encode an image file as the workflow does for the endpoint.

    Parameters
    ----------
    content : bytes
        The image file, in any format that the workflow accepts.

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
