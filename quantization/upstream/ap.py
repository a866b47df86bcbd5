"""Average precision by upstream's own code, of detections from anywhere.

Upstream's formula gives one to two points more than pycocotools on the same detections, so only this one compares with
what ``val.py`` and ``test.py`` print.
"""

from __future__ import annotations

import importlib
from typing import Any, Iterator

import numpy as np
import torch
from torch import Tensor

from quantization.evaluation.detecting import Found
from quantization.evaluation.ground_truth import TrueBoxes
from quantization.upstream.shims import install_shims


def upstream_ap(name: str, found: Found, truth: TrueBoxes) -> tuple[float, float]:
    """The mean average precisions that upstream's val.py or test.py prints.

    Args:
        name: "yolov5" or "yolov7"; its checkout must be importable (``enter_checkout``).
        found: detections, at most 300 per image, as upstream keeps them.
        truth: annotations of the same images.

    Returns:
        mAP@0.5:0.95 and mAP@0.5, means over the classes that occur in ``truth``; 0 where nothing is found.
    """
    install_shims()
    thresholds = torch.linspace(0.5, 0.95, 10)
    match = {"yolov5": _match_yolov5, "yolov7": _match_yolov7}[name]
    parts = []
    for detections, labels in _images(found, truth):
        correct = torch.zeros(len(detections), len(thresholds), dtype=torch.bool)
        if len(detections) and len(labels):
            correct = match(detections, labels, thresholds)
        parts.append((correct.numpy(), detections[:, 4].numpy(), detections[:, 5].numpy(), labels[:, 0].numpy()))
    if not parts:
        return 0.0, 0.0
    statistics = [np.concatenate(column) for column in zip(*parts)]
    if not statistics[0].any():
        return 0.0, 0.0
    precision = _precisions(name, statistics)  # (classes, 10)
    return float(precision.mean()), float(precision[:, 0].mean())


def _images(found: Found, truth: TrueBoxes) -> Iterator[tuple[Tensor, Tensor]]:
    """For each image its detections (N, 6), best first, as x1 y1 x2 y2 score class, and labels (M, 5), class first."""
    rows = np.column_stack((found.boxes.reshape(-1, 4), found.scores, found.labels)).astype(np.float32)
    labels = np.column_stack((truth.labels, truth.boxes.reshape(-1, 4))).astype(np.float32)
    order = np.argsort(-np.asarray(found.scores), kind="stable")
    order = order[np.argsort(found.image[order], kind="stable")]
    places = np.argsort(truth.image, kind="stable")
    images = np.union1d(found.image, truth.image)
    found_at = np.searchsorted(found.image[order], images)
    truth_at = np.searchsorted(truth.image[places], images)
    for detected, annotated in zip(np.split(order, found_at[1:]), np.split(places, truth_at[1:])):
        yield torch.from_numpy(rows[detected]), torch.from_numpy(labels[annotated])


def _match_yolov5(detections: Tensor, labels: Tensor, thresholds: Tensor) -> Tensor:
    """Which detections are right (N, 10), by val.py."""
    return importlib.import_module("val").process_batch(detections, labels, thresholds)


def _match_yolov7(detections: Tensor, labels: Tensor, thresholds: Tensor) -> Tensor:
    """Which detections are right (N, 10), as test.py's loop decides, which is no function that could be called.

    A detection counts for the label of its class that it overlaps most. The best detection of a label takes it.
    """
    from utils.general import box_iou

    correct = torch.zeros(len(detections), len(thresholds), dtype=torch.bool)
    for label in labels[:, 0].unique():
        annotated = (labels[:, 0] == label).nonzero().flatten()
        detected = (detections[:, 5] == label).nonzero().flatten()
        if not len(detected):
            continue
        ious, nearest = box_iou(detections[detected, :4], labels[annotated, 1:]).max(1)
        taken: set[int] = set()
        for index in (ious > thresholds[0]).nonzero().flatten().tolist():
            if int(nearest[index]) not in taken:
                taken.add(int(nearest[index]))
                correct[detected[index]] = ious[index] > thresholds
    return correct


def _precisions(name: str, statistics: list[np.ndarray]) -> Any:
    """AP of each class that occurs, at each threshold (classes, 10)."""
    from utils.metrics import ap_per_class

    results = ap_per_class(*statistics, plot=False, names={})
    return results[5] if name == "yolov5" else results[2]
