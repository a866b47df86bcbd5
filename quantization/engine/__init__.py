"""TensorRT engines built, run and timed; no torch."""
