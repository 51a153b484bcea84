"""Run an ONNX model that ``python -m training train`` wrote."""

import hashlib
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime

from common.errors import CommandError

#: The output with the image's features, which not every model has; `Model.probabilities` does not compute it.
FEATURES = "features"
#: The output with the class activation maps, which not every model has either.
MAP = "map"
# SageMaker's limit on CustomAttributes is 1024 visible ASCII characters.
_MAX_ATTRIBUTES = 1023


class Model:
    """An ONNX model with its labels.

    Parameters
    ----------
    path : pathlib.Path
        The ONNX file.

    Attributes
    ----------
    sha256 : str
        Of the file.
    attributes : str
        Labels and model as the endpoint announces them, in the header of each response.
    has_features : bool
        Whether the model can describe images as well as classify them.
    has_map : bool
        Whether the model can show where in an image it sees each label.

    Raises
    ------
    CommandError
        The file is missing, damaged, or without its metadata; or it returns another number of
        probabilities than it has labels.
    """

    def __init__(self, path: Path) -> None:
        if not path.is_file():
            raise CommandError(f"model {path} does not exist; create one with: python -m training train")
        content = path.read_bytes()
        self.sha256 = hashlib.sha256(content).hexdigest()
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
            raise CommandError(f"{path} has no {error} in its metadata; train it with this project") from error
        except Exception as error:  # ONNX Runtime's own errors have no common base class
            raise CommandError(f"{path} is not a usable ONNX model: {error}") from error
        self._input = self._session.get_inputs()[0].name
        outputs = [output.name for output in self._session.get_outputs()]
        self.has_features, self.has_map = FEATURES in outputs, MAP in outputs
        self.attributes = f"labels={json.dumps(self.labels, separators=(',', ':'))};model={self.sha256[:12]}"
        if len(self.attributes) > _MAX_ATTRIBUTES:
            raise CommandError(f"{path}: the labels are too long for a header of {_MAX_ATTRIBUTES} characters")
        # The first run allocates memory; do it now and not in a request.
        blank = np.zeros((self.input_size, self.input_size, 3), np.uint8)
        try:
            returned = self.probabilities(blank)
        except Exception as error:  # as above
            reason = " ".join(str(error).split())
            raise CommandError(f"{path} does not classify images of {self.input_size} pixels: {reason}") from error
        if len(returned) != len(self.labels):
            raise CommandError(f"{path} does not return one probability for each of {self.labels}")

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
        result = self._session.run(["probabilities"], {self._input: pixels[None]})[0][0]
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

    def activation_map(self, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
        """Return how much each part of one image raises the logit of each label; only a model that `has_map` can.

        Parameters
        ----------
        pixels : numpy.ndarray
            As for `probabilities`.

        Returns
        -------
        numpy.ndarray
            Shape (labels, rows, columns), the rows from the top.
        """
        result: npt.NDArray[np.float32] = self._session.run([MAP], {self._input: pixels[None]})[0][0]
        return result
