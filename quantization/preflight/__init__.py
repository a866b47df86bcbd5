"""Checks on a Q/DQ ONNX that predict what TensorRT does with it; onnx and numpy only."""
