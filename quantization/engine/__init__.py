"""TensorRT engines built, run and timed, by its Python package or trtexec; no torch, and no layer JSON is read here."""
