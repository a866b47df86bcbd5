"""Ranges of quantizers from images: histograms, range searches, scale groups, equalization; no placement and no training."""
