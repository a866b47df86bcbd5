"""INT8 quantization of YOLOv5 and YOLOv7 for TensorRT: PTQ, QAT, Q/DQ ONNX and engine tools."""

__version__ = "0.1.0"
