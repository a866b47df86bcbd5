"""All that the bundle knows of YOLOv5 and YOLOv7: checkout, models, losses, checkpoints, shims; no quantization logic."""
