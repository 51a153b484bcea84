"""Make an exported model smaller, or also faster: 8-bit integers instead of 32-bit floats."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process

# The slow layers; everything after the last pooling (logits, temperature, softmax) stays in floats.
OPERATIONS = ["Conv", "Relu", "MaxPool", "Add"]
LAST_POOLING = ("GlobalMaxPool", "ReduceMax")
BATCH = 64
# The operations that have weights, as their second input.
WEIGHTED = ("Conv", "Gemm", "MatMul")


class _Reader(CalibrationDataReader):
    def __init__(self, name: str, pixels: npt.NDArray[np.uint8]) -> None:
        parts = range(0, len(pixels), BATCH)
        self._batches: Iterator[dict[str, Any]] = iter([{name: pixels[i : i + BATCH]} for i in parts])

    def get_next(self) -> dict[str, Any] | None:
        return next(self._batches, None)


def quantise_weights(path: Path) -> None:
    """Replace the weights of an ONNX file by 8-bit integers, with one scale per output channel.

    ONNX Runtime restores the 32-bit floats when it loads the file, so that the arithmetic stays what it was.
    """
    model = onnx.load(str(path))
    graph = model.graph
    stored = {each.name: each for each in graph.initializer}
    restoring = []
    for node in graph.node:
        if node.op_type not in WEIGHTED or node.input[1] not in stored:
            continue
        name = node.input[1]
        weights = onnx.numpy_helper.to_array(stored.pop(name))
        transposed = any(each.name == "transB" and each.i for each in node.attribute)
        channels = 0 if node.op_type == "Conv" or transposed else weights.ndim - 1
        others = tuple(axis for axis in range(weights.ndim) if axis != channels)
        scale = np.maximum(np.abs(weights).max(axis=others, keepdims=True) / 127, np.finfo(np.float32).tiny)
        integers = np.round(weights / scale).astype(np.int8)
        stored[f"{name}:integers"] = onnx.numpy_helper.from_array(integers, f"{name}:integers")
        stored[f"{name}:scale"] = onnx.numpy_helper.from_array(scale.astype(np.float32), f"{name}:scale")
        restoring += [
            onnx.helper.make_node("Cast", [f"{name}:integers"], [f"{name}:floats"], to=onnx.TensorProto.FLOAT),
            onnx.helper.make_node("Mul", [f"{name}:floats", f"{name}:scale"], [name]),
        ]
    nodes = [*restoring, *graph.node]
    del graph.initializer[:], graph.node[:]
    graph.initializer.extend(stored.values())
    graph.node.extend(nodes)
    onnx.checker.check_model(model)
    onnx.save(model, str(path))


def quantise(path: Path, pixels: npt.NDArray[np.uint8]) -> None:
    """Replace an ONNX file by its static int8 form: per-channel weights, activations between their minimum and maximum.

    Parameters
    ----------
    path : pathlib.Path
        The model; its metadata is kept.
    pixels : numpy.ndarray
        Shape (n, edge, edge, 3), dtype uint8: images of every class, which set the range of each activation.
    """
    original = onnx.load(str(path))
    with tempfile.TemporaryDirectory() as folder:
        prepared, quantised = Path(folder) / "prepared.onnx", Path(folder) / "quantised.onnx"
        quant_pre_process(str(path), str(prepared), skip_symbolic_shape=True)
        nodes = list(onnx.load(str(prepared)).graph.node)
        last = next(i for i, node in enumerate(nodes) if node.op_type in LAST_POOLING)
        quantize_static(
            str(prepared),
            str(quantised),
            _Reader(original.graph.input[0].name, pixels),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            op_types_to_quantize=OPERATIONS,
            nodes_to_exclude=[node.name for node in nodes[last:]],
        )
        result = onnx.load(str(quantised))
    onnx.helper.set_model_props(result, {entry.key: entry.value for entry in original.metadata_props})
    onnx.save(result, str(path))
