"""Quantizer backends and the quantized modules; the one seam to pytorch-quantization."""
