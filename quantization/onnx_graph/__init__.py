"""An ONNX graph loaded and checked, indexed, its layers' names and what commutes with Q and DQ, rewrites; onnx and numpy only."""
