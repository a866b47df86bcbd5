"""An ONNX graph indexed, its node names and the operations that commute with Q and DQ; onnx and numpy only."""
