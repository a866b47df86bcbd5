"""The command export's ``--variants``: one calibration, and an ONNX of each placement for ``bench-engine.py --tune``."""

from __future__ import annotations

import copy
import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Sequence

import onnx
import torch
from torch import nn

from quantization.calibration.common import CommonCalibration, input_places
from quantization.cli.options import ExportCommand, QuantizeCommand
from quantization.cli.preparation import prepare, sample_tensors
from quantization.cli.stages import export_input
from quantization.data.dataset import open_dataset
from quantization.engine.plans import file_hash
from quantization.engine.variant_folder import FLOAT, LIST_FILE, VariantFile, VariantFolder, write_variant_folder
from quantization.errors import UserError
from quantization.evaluation.comparison import named_images
from quantization.evaluation.network import fit_dataset
from quantization.export.export import export_onnx
from quantization.files import atomic_write, check_writable
from quantization.option_fields import typed_words
from quantization.options import ExportOptions, PlacementOptions
from quantization.placement.policy import choose_placement
from quantization.placement.variants import (
    EVERY_QUANTIZER,
    VARIANTS,
    Place,
    Variant,
    enabled_places,
    float_paths,
    keep_places,
    missing_places,
    wanted_places,
)
from quantization.preflight.report import preflight
from quantization.preflight.subject import FLOAT_LAYERS
from quantization.quantize import insert_quantizers
from quantization.quantizers.switches import disable_quantization, have_quantizers, uncalibrated
from quantization.upstream.model import every_class_name
from quantization.upstream.network import torch_network
from quantization.upstream.trained_size import warn_of_other_size

LOG = logging.getLogger("quantization")
FLOAT_WEIGHT, PTQ_WEIGHT = "FLOAT.pt", "ptq.pt"  # stand for a checkpoint that is not known here, and for quantize's
AS_IT_IS = Variant("checkpoint")


class _Chosen(NamedTuple):
    """A variant of this network, and the quantizers that it has."""

    variant: Variant
    places: frozenset[Place]


class VariantExport:
    """All files of one folder.

    Args:
        name: "yolov5" or "yolov7".
        options: of the command export, with ``variants``.

    Attributes:
        failed: names of the variants that the preflight refuses, once ``run`` has written them.

    Raises:
        UserError: something in the input has to change; nothing is written then.
    """

    def __init__(self, name: str, options: ExportCommand) -> None:
        self.name, self.options, self.folder = name, options, Path(str(options.variants))
        self.images = replace(options.images, imgsz=max(options.graph.size))
        self.source = None if options.compare_images is None else named_images(options.compare_images)
        self.model, _ = export_input(name, options)
        self.network = torch_network(name, self.model, options.weight, self.images)
        self.dataset = None
        if have_quantizers(self.model):
            self._check_checkpoint()
        else:
            choose_placement(self.model, PlacementOptions(ignore_policy=options.placement.ignore_policy))
            named = open_dataset(options.images.cocodir, options.images.data)
            self.dataset = fit_dataset(named, self.network, train=True, val=False).dataset
            warn_of_other_size(self.model, options.weight, self.images.imgsz, "--size")
        check_writable(self.folder / LIST_FILE, "--variants", make_folder=False)
        self.failed: list[str] = []

    def _check_checkpoint(self) -> None:
        """Refuse what has no meaning for a quantized checkpoint."""
        flag = self.options.calibration_flag()
        if flag is not None:
            raise UserError(
                f"{flag}: {self.options.weight} is quantized and keeps its own scales: leave the option out, or give the "
                "float .pt"
            )
        missing = uncalibrated(self.model)
        if missing:
            raise UserError(
                f"{self.options.weight} was never calibrated ({missing[0]} has no scale): quantize it first"
            )

    def run(self) -> list[VariantFile]:
        """Write all files, variants.json last; what it lists."""
        listed = self.folder / LIST_FILE
        if listed.exists():  # of an earlier run, whose files are written again now
            listed.unlink()
        with disable_quantization(self.model):
            self._export(FLOAT, self.model, self.options.graph)
        words = typed_words(ExportCommand(self.options.weight, graph=self.options.graph))
        written = [self._entry(FLOAT, None, words)]
        if self.dataset is None:
            chosen, common = self._of_checkpoint(), None
        else:
            chosen, common = self._of_float()
        for found in chosen:
            model: Any = copy.deepcopy(self.model)
            keep_places(model, found.places)
            if common is not None:
                common.set_ranges(model)
            entry = self._quantized(found, model)
            twin = next((other.name for other in written if other.sha256 == entry.sha256), None)
            if twin is None:
                written.append(entry)
            else:
                LOG.info("%s: the same as %s, and left out", entry.name, twin)
                self._file(entry.name).unlink()
        names, shape = tuple(every_class_name(self.model)), self.options.graph.shape
        write_variant_folder(str(self.folder), VariantFolder(self.name, shape, names, self.network.iou, tuple(written)))
        return written

    def _of_float(self) -> tuple[list[_Chosen], CommonCalibration]:
        """Put the quantizers of all variants into the float model, and calibrate them."""
        options = self.options
        assert self.dataset is not None  # that of a float checkpoint
        torch.manual_seed(options.images.seed)  # as quantize does
        prepare(self.model, self.dataset, self.images, options.calibration)
        everything = PlacementOptions(options.placement.ignore_policy, **EVERY_QUANTIZER)
        insert_quantizers(self.model, choose_placement(self.model, everything), options.graph.exporter)
        chosen = self._distinct(VARIANTS)
        count = options.calibration.batches * options.images.batch_size
        images = sample_tensors(self.dataset, self.images, next(self.model.parameters()).device, count)
        common = CommonCalibration(
            self.model, images, options.calibration, [input_places(found.places) for found in chosen]
        )
        LOG.info("Calibrated once on %d images by %s", images.image_count, options.calibration.method)
        return chosen, common

    def _of_checkpoint(self) -> list[_Chosen]:
        """The variants that are made of a quantized checkpoint by taking quantizers away."""
        possible = [AS_IT_IS]
        for variant in VARIANTS:
            missing = missing_places(self.model, variant.placement_options(()))
            if missing:
                LOG.info(
                    "%s: left out, %s has no scale for %s: give the float .pt",
                    variant.name,
                    self.options.weight,
                    missing[0],
                )
            else:
                possible.append(variant)
        return self._distinct(possible)

    def _distinct(self, variants: Sequence[Variant]) -> list[_Chosen]:
        """Those of the variants that differ on this network."""
        kept: dict[tuple[frozenset[Place], ExportOptions], _Chosen] = {}
        for variant in variants:
            try:
                options = variant.placement_options(self.options.placement.ignore_policy)
                places = enabled_places(self.model) if variant is AS_IT_IS else wanted_places(self.model, options)
            except UserError as error:  # a pattern of its own: the network has no such layer
                LOG.info("%s: left out (%s)", variant.name, error)
                continue
            found = kept.setdefault((places, variant.export_options(self.options.graph)), _Chosen(variant, places))
            if found.variant is not variant:
                LOG.info("%s: the same as %s, and left out", variant.name, found.variant.name)
        return list(kept.values())

    def _quantized(self, found: _Chosen, model: nn.Module) -> VariantFile:
        """Write one ONNX and check it."""
        options, variant = self.options, found.variant
        graph = variant.export_options(options.graph)
        placement = variant.placement_options(options.placement.ignore_policy)
        written = self._export(variant.name, model, graph)
        left = float_paths(model)
        if placement.ignore_policy:  # for check-onnx.py on another machine
            reasons = json.dumps(dict.fromkeys(sorted(left), "--ignore-policy, --head or --stem"))
            written.metadata_props.add(key=FLOAT_LAYERS, value=reasons)
            with atomic_write(self._file(variant.name)) as temporary:
                onnx.save(written, temporary)
        report = preflight(written, left.__contains__)
        for finding in report.findings if report.failed else ():
            LOG.warning("WARNING: %s: %s", variant.name, f"{finding.what}: {finding.change}")
        self.failed += [variant.name] if report.failed else []
        quantize = self._quantize_words(found.places, placement)
        weight = PTQ_WEIGHT if quantize else options.weight
        return self._entry(variant.name, quantize, typed_words(ExportCommand(weight, graph=graph)))

    def _quantize_words(self, places: frozenset[Place], placement: PlacementOptions) -> list[str]:
        """What makes the checkpoint of a variant; nothing, where the one given is it."""
        options = self.options
        if self.dataset is not None:
            return typed_words(
                QuantizeCommand(
                    options.weight, placement=placement, calibration=options.calibration, images=self.images
                )
            )
        if places == enabled_places(self.model):
            return []
        return typed_words(QuantizeCommand(FLOAT_WEIGHT, placement=placement))

    def _export(self, name: str, model: nn.Module, graph: ExportOptions) -> onnx.ModelProto:
        return export_onnx(model, str(self._file(name)), graph, self.source, upstream=self.name).graph

    def _entry(self, name: str, quantize: list[str] | None, export: list[str]) -> VariantFile:
        file = self._file(name)
        words = None if quantize is None else ("quantize", *quantize) if quantize else ()
        return VariantFile(name, file.name, file_hash(str(file)), words, ("export", *export))

    def _file(self, name: str) -> Path:
        return self.folder / f"{name}.onnx"
