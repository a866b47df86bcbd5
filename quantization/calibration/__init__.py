"""Ranges of quantizers from images and gradients, as torch shows them; equalization; no placement and no training."""
