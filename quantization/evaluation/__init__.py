"""From predictions to COCO mAP: ground truth, detections, predictors; no torch."""
