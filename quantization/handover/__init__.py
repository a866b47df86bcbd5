"""What other runtimes need beside an exported ONNX: Triton's model repository, DeepStream's configuration. No torch."""
