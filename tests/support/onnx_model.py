"""A tiny ONNX model, written byte by byte: the tests need no library that builds one."""

import json
import struct
from pathlib import Path

EDGE = 4
#: The model's features are the pixels of its input.
FEATURES = EDGE * EDGE * 3


def write_model(
    path: Path,
    features: bool = True,
    maps: bool = False,
    labels: tuple[str, str] = ("bicycle", "motorcycle"),
    bias: tuple[float, float] = (0.0, 0.0),
    redness: float = 0.0,
    fails: bool = False,
) -> Path:
    """Write a model that gives two labels the softmax of a bias, and has the outputs ``features`` and ``map`` or not.

    The redder a picture is, the surer it is of the first label, by ``redness`` for each pixel's level; the bluer, of
    the second. Its maps show the first label where the image is red, the second where it is green. A model that fails
    does so on every image that is not nearly black.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_model("features" if features else "flat", maps, labels, bias, redness, fails))
    return path


# Protocol Buffers' wire format (https://protobuf.dev/programming-guides/encoding) of onnx.proto's messages.
def _field(number: int, value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    data = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    low, rest = value & 127, value >> 7
    return bytes([low | 128]) + _varint(rest) if rest else bytes([low])


def _node(kind: str, inputs: list[str], output: str, *attributes: bytes) -> bytes:
    named = b"".join(_field(1, each) for each in inputs)
    return named + _field(2, output) + _field(4, kind) + b"".join(_field(5, each) for each in attributes)


def _value(name: str, kind: int, *shape: int | str) -> bytes:
    sizes = b"".join(_field(1, _field(1 if isinstance(size, int) else 2, size)) for size in shape)
    return _field(1, name) + _field(2, _field(1, _field(1, kind) + _field(2, sizes)))


def _model(
    flat: str, maps: bool, labels: tuple[str, str], bias: tuple[float, float], redness: float, fails: bool
) -> bytes:
    floats, bytes_, longs = 1, 2, 7  # TensorProto.DataType
    to_float = _field(1, "to") + _field(3, floats) + _field(20, 2)
    nodes = [
        _node("Cast", ["images"], "pixels", to_float),
        _node("Reshape", ["pixels", "shape"], flat),
        _node("MatMul", [flat, "weights"], "zeros"),
        _node("Add", ["zeros", "bias"], "logits"),
        _node("Softmax", ["shifted" if fails else "logits"], "probabilities"),
    ]
    if fails:
        # The brightest level is an index into two numbers. Both logits are shifted by what is there.
        flat_maximum = _field(1, "keepdims") + _field(3, 0) + _field(20, 2)
        to_long = _field(1, "to") + _field(3, longs) + _field(20, 2)
        nodes[-1:-1] = [
            _node("ReduceMax", ["images"], "brightest", flat_maximum),
            _node("Cast", ["brightest"], "index", to_long),
            _node("Gather", ["bias", "index"], "shift"),
            _node("Add", ["logits", "shift"], "shifted"),
        ]
    if maps:
        axis = _field(1, "axis") + _field(3, 3) + _field(20, 2)
        order = _field(1, "perm") + b"".join(_field(8, each) for each in (0, 3, 1, 2)) + _field(20, 7)
        nodes += [
            _node("Gather", ["pixels", "channels"], "picked", axis),
            _node("Transpose", ["picked"], "map", order),
        ]
    by_colour = struct.pack("<6f", redness, 0, 0, 0, 0, redness) * EDGE**2
    weights = _field(1, FEATURES) + _field(1, 2) + _field(2, floats) + _field(8, "weights")
    shape = _field(1, 2) + _field(2, longs) + _field(8, "shape") + _field(9, struct.pack("<2q", -1, FEATURES))
    biases = _field(1, 2) + _field(2, floats) + _field(8, "bias") + _field(9, struct.pack("<2f", *bias))
    graph = b"".join(_field(1, node) for node in nodes) + _field(2, "tiny")
    graph += _field(5, weights + _field(9, by_colour)) + _field(5, shape) + _field(5, biases)
    channels = _field(1, 2) + _field(2, longs) + _field(8, "channels") + _field(9, struct.pack("<2q", 0, 1))
    if maps:
        graph += _field(5, channels)
    graph += _field(11, _value("images", bytes_, "batch", EDGE, EDGE, 3))
    graph += _field(12, _value("probabilities", floats, "batch", 2))
    if flat == "features":
        graph += _field(12, _value(flat, floats, "batch", FEATURES))
    if maps:
        graph += _field(12, _value("map", floats, "batch", 2, EDGE, EDGE))
    metadata = {"labels": json.dumps(labels), "input_size": str(EDGE)}
    properties = b"".join(_field(14, _field(1, key) + _field(2, value)) for key, value in metadata.items())
    return _field(1, 8) + _field(7, graph) + _field(8, _field(1, "") + _field(2, 13)) + properties
