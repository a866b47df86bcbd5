"""From a float ONNX of any detector to a Q/DQ one: placement on the graph, ranges by ONNX Runtime; needs no checkout."""
