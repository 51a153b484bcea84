"""What a training job runs, as ``train.py`` beside the packages: the command that also trains on a laptop.

SageMaker's driver passes the hyper-parameters as arguments.
"""

import os
import sys
from pathlib import Path

from training.__main__ import main

if __name__ == "__main__":
    model = Path(os.environ["SM_MODEL_DIR"])
    places = ["--data", os.environ["SM_CHANNEL_STAGED"], "--out", str(model / "model.onnx")]
    sys.exit(main(["train", *places, "--checkpoints", str(model.parent / "checkpoints"), *sys.argv[1:]]))
