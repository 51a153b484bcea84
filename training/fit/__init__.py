"""Train a network, calibrate it, and export it to ONNX. Needs torch."""
