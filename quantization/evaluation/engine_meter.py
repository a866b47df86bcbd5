"""The mAP of engines that are tuned, and their differences to the FP16 engine, on one data set. No torch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from quantization.engine.runtime import Engine
from quantization.engine.tune import REFERENCE
from quantization.engine.variant_folder import VariantFolder
from quantization.errors import UserError
from quantization.evaluation.engine_predictor import EnginePredictor
from quantization.evaluation.network import Network, make_evaluator, open_checked
from quantization.evaluation.saved_samples import annotation_digest, compare_with, read_samples, write_samples
from quantization.onnx_graph.origin import Origin
from quantization.options import DataOptions


class EngineMeter:
    """Measures engines of one network; see ``tune.AccuracyMeter``.

    Args:
        folder: facts of the network.
        data: a data.yaml.
        samples: .npz of what the reference found, for a run that goes on.

    Raises:
        UserError: the data set cannot be used, or does not fit the network.
    """

    def __init__(self, folder: VariantFolder, data: str, samples: str) -> None:
        images = DataOptions(data=data, imgsz=max(folder.size))
        names, size = folder.names, folder.size
        origin = Origin(folder.upstream, folder.iou)
        network = Network(origin.upstream, len(names), names, size, origin.iou, origin.objectness_only)
        checked = open_checked(images, network)
        self._evaluator = make_evaluator(images, network, checked.dataset, checked.truth)
        self._samples = samples
        self.key = f"{self._evaluator.conditions}, annotations {annotation_digest(self._evaluator)}"

    def knows_reference(self) -> bool:
        """Whether the file of samples is there and fits; the later engines are then compared with it."""
        if not os.path.isfile(self._samples):
            return False
        try:
            compare_with(read_samples(self._samples), self._evaluator)
        except UserError as error:
            print(f"{REFERENCE} is measured again: {error}")
            return False
        return True

    def __call__(self, engine: Engine, name: str) -> dict[str, Any]:
        """The figures of an engine; see ``tune.AccuracyMeter``."""
        if name == REFERENCE:
            self._evaluator.references.clear()
        metrics = self._evaluator(EnginePredictor(engine), name)
        found: dict[str, Any] = {"map": metrics.map, "map50": metrics.map50, "conditions": metrics.conditions}
        if name == REFERENCE:
            write_samples(self._samples, metrics, self._samples, self._evaluator)
            compare_with(read_samples(self._samples), self._evaluator)
        else:
            apart = metrics.against.get(Path(self._samples).name, {}).get("map", {})
            found.update({key: apart[key] for key in ("points", "plus_minus") if key in apart})
        return found
