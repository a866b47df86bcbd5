"""The command export's ``--triton`` and ``--deepstream``."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import onnx
from torch import nn

from quantization.cli.options import ExportCommand
from quantization.closing import command_line
from quantization.errors import UserError
from quantization.files import check_writable
from quantization.handover.deepstream import write_deepstream
from quantization.handover.facts import network_facts
from quantization.handover.triton import write_triton
from quantization.upstream.checkout import UPSTREAMS
from quantization.upstream.model import every_class_name, head_path

LOG = logging.getLogger("quantization")


def check_hand_over(model: nn.Module, options: ExportCommand) -> None:
    """Checked before the export.

    Raises:
        UserError: a folder cannot be written to, or is one that Python would import; or DeepStream is to run a segmentation
            network.
    """
    if options.triton is not None:
        _refuse_package(Path(options.triton))
        check_writable(Path(options.triton, _model_name(options), "config.pbtxt"), "--triton", make_folder=False)
    if options.deepstream is not None:
        if hasattr(model.get_submodule(head_path(model)), "proto"):
            raise UserError(
                f"--deepstream: {options.weight} is a segmentation network, and the parser reads boxes alone: leave it out"
            )
        check_writable(Path(options.deepstream, "config_infer.txt"), "--deepstream", make_folder=False)


def _refuse_package(folder: Path) -> None:
    """Refuse a folder that torch would take for OpenAI's package triton, and then fail to import in every later command."""
    folder = folder.resolve()
    if folder.name == "triton" and str(folder.parent) in {str(Path(entry).resolve()) for entry in sys.path}:
        raise UserError(
            f"--triton {folder}: torch imports a package of that name, and would find this folder: name another one"
        )


def hand_over(name: str, model: nn.Module, graph: onnx.ModelProto, options: ExportCommand) -> None:
    """Write what the options ask for.

    Args:
        name: the upstream.
        model: for the names of its classes.
        graph: the ONNX.
        options: where to.
    """
    facts = network_facts(graph, every_class_name(model), UPSTREAMS[name].origin.objectness_only)
    if options.triton is not None:
        files = write_triton(Path(options.triton), _model_name(options), graph, facts, options.graph.batch)
        LOG.info("Triton: %s; build 1/model.plan beside 1/model.onnx on the target", files[0])
    if options.deepstream is not None:
        files = write_deepstream(Path(options.deepstream), graph, facts, options.graph.batch)
        LOG.info("DeepStream: %s; its first lines say how to build the plan and the parser", files[0])


def handed_over(options: ExportCommand) -> dict[str, str]:
    """The folders that ``hand_over`` writes, and what they are."""
    written = {}
    if options.triton is not None:
        written[str(Path(options.triton, _model_name(options)))] = "Triton's model, still without 1/model.plan"
    if options.deepstream is not None:
        written[options.deepstream] = "nvinfer's configuration and parser, still without model.plan"
    return written


def triton_build(options: ExportCommand, mode: str) -> str:
    """The line that builds ``1/model.plan`` on the target, for every batch that the configuration allows.

    Args:
        options: with ``triton``.
        mode: of the build, "fp16" or "qat".
    """
    graph, version = options.graph, Path(str(options.triton), _model_name(options), "1")
    height, width = graph.shape
    shapes = [f"images:{batch}x3x{height}x{width}" for batch in (graph.batch, 1)]
    words = ["--shapes", shapes[0], "--min-shapes", shapes[1]] if graph.dynamic else []
    engine = f"model={mode}:{version / 'model.onnx'}"
    return command_line("bench-engine.py", "--engine", engine, *words, "--save-engine", version)


def _model_name(options: ExportCommand) -> str:
    return Path(options.save or options.weight).stem
