"""Layer and profile JSON of an engine, read, drawn, compared, explained; neither torch nor TensorRT."""
