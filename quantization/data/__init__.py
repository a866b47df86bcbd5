"""Images and labels of a data set, read, checked and batched; no models."""
