"""Upstream's networks through the bundle: run in a checkout, ``python architecture_tasks.py TASK UPSTREAM ARGUMENTS``.

Each task prints its result as JSON on the last line. All networks have random weights.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

sys.path[:0] = [".", str(Path(__file__).resolve().parents[2] / "benchmarks")]

from quantization.upstream.checkout import enter_checkout

if __name__ == "__main__":
    enter_checkout(sys.argv[2], Path.cwd())

import torch
from architectures import measure
from random_net import random_net
from torch import nn

from quantization import quantize
from quantization.calibration.calibrate import calibrate_model
from quantization.export.export import export_onnx
from quantization.export.graph import export_graph
from quantization.onnx_graph.graph import OnnxGraph
from quantization.options import HEADS, ExportOptions, PlacementOptions
from quantization.placement.insert import replace_to_quantization_module
from quantization.placement.policy import choose_placement, placement_of
from quantization.placement.scale_groups import ScaleGroup, shared_groups
from quantization.placement.variants import VARIANTS, enabled_places, keep_places, missing_places, wanted_places
from quantization.preflight.report import preflight
from quantization.quantizers.backend import OUTPUT_NAME, is_enabled, named_quantizers
from quantization.quantizers.modules import SHORTCUTS, quantized_type
from quantization.quantizers.switches import disable_quantization, shortcut_sums
from quantization.upstream import checkpoint
from quantization.upstream import model as upstream


def quantized_net(cfg: str, classes: int, head: str = "auto") -> nn.Module:
    """A fused network with quantizers that are neither shared nor calibrated."""
    model = upstream.fuse(random_net(cfg, classes))
    quantize.initialize("native")
    replace_to_quantization_module(model, choose_placement(model, PlacementOptions(head=head)))
    return model


def share_scales(model: nn.Module, size: int, exporter: str = "torchscript") -> list[ScaleGroup]:
    """Give every scale group one quantizer; all groups."""
    return quantize.apply_custom_rules_to_quantizer(
        model, lambda part: export_graph(part, ExportOptions((size,), exporter=exporter))
    )


def groups(name: str, *nets: str) -> Any:
    """Per ``CFG@EXPORTER``: the names of the members of every scale group."""
    found = []
    for net in nets:
        cfg, exporter = net.split("@")
        found.append([list(group.names) for group in share_scales(quantized_net(cfg, 80), 64, exporter)])
    return found


def heads(name: str, cfg: str) -> Any:
    """Per choice of ``--head``: the quantizers of each detect convolution, "i" for the input's, "w" for the weight's."""
    found = {}
    for choice in HEADS:
        model = quantized_net(cfg, 80, head=choice)
        head = model.get_submodule(upstream.head_path(model))
        assert isinstance(head.m, nn.ModuleList)
        found[choice] = [
            "".join(kind[0] for kind in ("input", "weight") if hasattr(convolution, f"_{kind}_quantizer"))
            for convolution in head.m
        ]
    return found


def rows(name: str, *cfgs: str) -> Any:
    """Per network: its row of ``benchmarks/architectures.py``, which quantizes, calibrates and exports it."""
    return [measure(cfg) for cfg in cfgs]


def block_differences(name: str) -> Any:
    """Blocks with a sum: (class, equal, sums) of every block against its quantized form with the quantizers off."""
    quantize.initialize("native")
    kinds = upstream.block_types(SHORTCUTS)
    found = []
    for kind, block_name in kinds.items():
        is_layer = block_name in ("Shortcut", "Foldcut")
        strides: list[dict[str, Any]] = [{"s": 1}, {"s": 2}] if "Ghost" in block_name else [{"shortcut": True}]
        for options in [{"dimension": 1}] if is_layer else strides:
            torch.manual_seed(0)
            block = kind(**options) if is_layer else kind(64, 64, **options)
            block.eval()
            image = torch.randn(2, 64, 8, 8)
            images = [image, torch.randn(2, 64, 8, 8)] if block_name == "Shortcut" else image
            expected = block(images)
            block.__class__ = quantized_type(block, kinds)
            block.add_quantizers()
            with disable_quantization(block):
                equal = torch.equal(block(images), expected)
            found.append([block_name, equal, len(shortcut_sums(block))])
    return found


def auxiliary_head(name: str, cfg: str) -> Any:
    """A network with an auxiliary head, with and without shared scales, through a checkpoint and an export."""
    found = []
    for with_rules in (True, False):
        model = quantized_net(cfg, 7)
        if with_rules:
            share_scales(model, 128)
        calibrate_model(model, [torch.rand(2, 3, 128, 128)], "max")
        checkpoint.save("auxiliary.pt", model, {})
        loaded, _ = checkpoint.load("auxiliary.pt", torch.device("cpu"), name)
        difference = export_onnx(loaded, "auxiliary.onnx", ExportOptions((128,))).difference
        found.append(
            {
                "difference": difference.largest / difference.scale,
                "off": [
                    path
                    for path, attribute, _, quantizer in named_quantizers(loaded)
                    if not is_enabled(quantizer) and attribute == "_input_quantizer"
                ],
                "groups": [list(group.names) for group in shared_groups(loaded)],
            }
        )
    return found


def described(name: str, *cfgs: str) -> Any:
    """Per network: type, sources and parameters of each layer; shapes of the training outputs at 64 x 64; anchors."""
    from models.yolo import Model

    nets = {}
    for cfg in cfgs:
        model = Model(cfg).train()
        outputs = model(torch.zeros(2, 3, 64, 64))
        nets[cfg] = {
            "layers": [[layer.type.split(".")[-1], layer.f, layer.np] for layer in model.model],
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "shapes": [list(output.shape) for output in outputs],
            "anchors": model.model[-1].anchors.tolist(),
        }
    return nets


def placed(name: str, cfg: str, *policy: str) -> Any:
    """The placement that ``--ignore-policy`` decides, and the one that is read off the quantized network."""
    model = upstream.fuse(random_net(cfg, 3))
    decided = choose_placement(model, PlacementOptions(ignore_policy=policy))
    quantize.initialize("native")
    replace_to_quantization_module(model, decided)
    return [dataclasses.asdict(decided), dataclasses.asdict(placement_of(model))]


def paired(name: str, cfg: str, choice: str, exporter: str = "torchscript") -> Any:
    """A network with pairs before activations through calibration, a checkpoint and an export.

    Returns:
        "decided", "read off": the placement, and that of the loaded checkpoint. "stem in float": pairs with --stem float and
        with a policy. "alone": places behind convolutions that share no scale. "operators": what reads each such pair.
        "difference" of the ONNX from torch. "findings" of preflight with their severity, and its "separate_q". "variants": the
        quantizers that each variant has at the first convolution; "possible": those of a checkpoint without pairs.
    """
    model = upstream.fuse(random_net(cfg, 3))
    decided = choose_placement(model, PlacementOptions(activation_pairs=choice))
    others: list[dict[str, Any]] = [{"stem": "float"}, {"ignore_policy": (r"model\.0",)}]
    stem_in_float = [choose_placement(model, PlacementOptions(activation_pairs=choice, **other)) for other in others]
    report = quantize.quantize(model, [torch.rand(2, 3, 64, 64)], decided, exporter=exporter)
    checkpoint.save("paired.pt", model, {})
    loaded, _ = checkpoint.load("paired.pt", torch.device("cpu"), name)
    exported = export_onnx(loaded, "paired.onnx", ExportOptions((64,), exporter=exporter))
    graph = OnnxGraph(exported.graph)
    operators = []
    for node in graph.nodes:
        before = graph.producer.get(node.input[0]) if node.op_type == "QuantizeLinear" else None
        if before is not None and before.op_type == "Conv":
            (dequantize,) = (reader for reader, _ in graph.consumers[node.output[0]])
            operators.append("+".join(sorted({reader.op_type for reader, _ in graph.consumers[dequantize.output[0]]})))
    found = preflight(exported.graph, set(decided.unquantized).__contains__)
    options = {
        variant.name: variant.placement_options(())
        for variant in VARIANTS
        if not variant.placement.get("ignore_policy")  # sums, which not every network has
    }
    places = {name: wanted_places(loaded, option) for name, option in options.items()}
    plain = copy.deepcopy(loaded)
    keep_places(plain, frozenset(place for place in enabled_places(plain) if place[1] != OUTPUT_NAME))
    return {
        "variants": {
            name: sorted(place for path, place in found_places if path == "model.0.conv")
            for name, found_places in places.items()
        },
        "possible": [name for name, option in options.items() if not missing_places(plain, option)],
        "decided": dataclasses.asdict(decided),
        "read off": dataclasses.asdict(placement_of(loaded)),
        "stem in float": [placement.paired for placement in stem_in_float],
        "alone": [group[0] for group in report.groups if len(group) == 1 and group[0].endswith(":out")],
        "operators": operators,
        "difference": exported.difference.largest / exported.difference.scale,
        "findings": sorted([finding.severity, finding.check] for finding in found.findings),
        "separate_q": found.separate_q,
    }


def main(arguments: list[str]) -> None:
    """Run the task and print its result."""
    tasks = (groups, heads, rows, block_differences, auxiliary_head, described, placed, paired)
    result = {task.__name__: task for task in tasks}[arguments[0]](*arguments[1:])
    print("\n" + json.dumps(result))


if __name__ == "__main__":
    main(sys.argv[1:])
