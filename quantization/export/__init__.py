"""From a quantized model to a checked Q/DQ ONNX; nothing here reads data sets."""
