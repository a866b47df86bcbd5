"""Quantization-aware training: the loop, its quantizers, losses, averages and curve; nothing upstream-specific but through its arguments."""
