"""Run an ONNX model that ``python -m training train`` wrote."""

import hashlib
import json
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

from common.errors import CommandError

MODEL_FILE = "model.onnx"
#: The output with the image's features, which not every model has; `Model.probabilities` does not compute it.
FEATURES = "features"
# SageMaker's limit on CustomAttributes is 1024 visible ASCII characters.
_MAX_ATTRIBUTES = 1023


class ModelError(Exception):
    """The model file is missing or is not one that ``python -m training train`` wrote."""


class Model:
    """An ONNX model with its labels; ``has_features`` if it can describe images as well as classify them.

    Parameters
    ----------
    model_dir : pathlib.Path
        Folder that contains ``model.onnx``.

    Raises
    ------
    ModelError
        The file is missing, damaged, or without its metadata; or it returns another number of
        probabilities than it has labels.
    """

    def __init__(self, model_dir: Path) -> None:
        path = model_dir / MODEL_FILE
        if not path.is_file():
            raise ModelError(f"{path} does not exist; MODEL_DIR must name the folder that contains {MODEL_FILE}")
        content = path.read_bytes()
        options = onnxruntime.SessionOptions()
        # The network is too small to benefit from threads; each core has a worker instead.
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        try:
            self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
            metadata = self._session.get_modelmeta().custom_metadata_map
            self.labels: list[str] = json.loads(metadata["labels"])
            self.input_size = int(metadata["input_size"])
        except KeyError as error:
            raise ModelError(f"{path} has no {error} in its metadata; train it with this project") from error
        except Exception as error:  # ONNX Runtime's own errors have no common base class
            raise ModelError(f"{path} is not a usable ONNX model: {error}") from error
        self._input = self._session.get_inputs()[0].name
        self._probabilities, *others = [output.name for output in self._session.get_outputs()]
        self.has_features = FEATURES in others
        self.attributes = (
            f"labels={json.dumps(self.labels, separators=(',', ':'))};model={hashlib.sha256(content).hexdigest()[:12]}"
        )
        if len(self.attributes) > _MAX_ATTRIBUTES:
            raise ModelError(f"{path}: the labels are too long for a header of {_MAX_ATTRIBUTES} characters")
        # The first run allocates memory; do it now and not in a request.
        blank = np.zeros((self.input_size, self.input_size, 3), np.uint8)
        if len(self.probabilities(blank)) != len(self.labels):
            raise ModelError(f"{path} does not return one probability for each of {self.labels}")

    def probabilities(self, pixels: npt.NDArray[np.uint8]) -> list[float]:
        """Run the network on one image.

        Parameters
        ----------
        pixels : numpy.ndarray
            Shape (input_size, input_size, 3), dtype uint8.

        Returns
        -------
        list of float
            One probability per label. Rounded down to a millionth, so that rounding never makes the sum
            exceed one.
        """
        result = self._session.run([self._probabilities], {self._input: pixels[None]})[0][0]
        return [float(p) for p in np.floor(result.astype(np.float64) * 1e6) / 1e6]

    def features(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Describe the content of one image; only a model that `has_features` can.

        Parameters
        ----------
        pixels : numpy.ndarray
            As for `probabilities`.

        Returns
        -------
        numpy.ndarray
            Shape (features,).
        """
        result: npt.NDArray[np.float32] = self._session.run([FEATURES], {self._input: pixels[None]})[0][0]
        return result


def load_model(path: Path) -> tuple[Model, str]:
    """Load an ONNX file, of any name, as the endpoint does; return it with its SHA-256.

    Raises
    ------
    CommandError
        The file is missing, or is not a model of this project.
    """
    if not path.is_file():
        raise CommandError(f"model {path} does not exist; create one with: python -m training train")
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / MODEL_FILE  # the endpoint expects this name
        link.symlink_to(path.resolve())
        try:
            return Model(link.parent), hashlib.sha256(path.read_bytes()).hexdigest()
        except ModelError as error:
            raise CommandError(str(error).replace(str(link), str(path))) from error
