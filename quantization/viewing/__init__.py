"""Pictures of detections: what models find in images, how two of them differ, and a page of the worst. No torch."""
