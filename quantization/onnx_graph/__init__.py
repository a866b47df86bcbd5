"""An ONNX graph loaded and checked, indexed, its layers' names and what commutes with Q and DQ; onnx and numpy only."""
