"""What each command ends with: its figures beside each other, its files, the commands that come next."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Mapping, Sequence

from quantization.cli.handing_over import handed_over, triton_build
from quantization.cli.options import EvaluationCommand, ExportCommand, QuantizeCommand, SensitiveCommand
from quantization.closing import Closing, command_line
from quantization.engine.variant_folder import LIST_FILE, VariantFile
from quantization.evaluation.verdict import accuracy_table, choose_checkpoint, figures_table
from quantization.options import DataOptions, ExportOptions
from quantization.placement.policy import policy_line
from quantization.preflight.report import Report
from quantization.qat.run import picture_file
from quantization.tables import Row, Table
from quantization.text import read_json


def data_words(images: DataOptions) -> list[str]:
    """The options that name the data set, as they are typed."""
    if images.data is not None:
        return ["--data", images.data]
    return [] if images.cocodir is None else ["--cocodir", images.cocodir]


def after_quantize(name: str, options: QuantizeCommand) -> Closing:
    """Float, PTQ and QAT beside each other, and which file to ship."""
    summary = read_json(options.summary, "--summary")
    verdict, figures = choose_checkpoint(summary), summary["figures"]
    written = {options.ptq: "PTQ checkpoint"}
    if options.qat is not None:
        fell_back = figures.get("qat", {}).get("epoch") == 0
        written[options.qat] = (
            "PTQ's weights, as no epoch was better" if fell_back else "QAT checkpoint, the best epoch"
        )
    written[options.summary] = "figures, options, versions, scales"
    if options.qat is not None:
        written[picture_file(options.summary)] = "curve of QAT"
    script, model = f"qat-{name}.py", str(Path(verdict.file).with_suffix(".onnx"))
    following = [command_line(script, "export", verdict.file, "--size", options.images.imgsz, "--save", model)]
    return Closing(accuracy_table(figures, verdict.key) if figures else None, verdict.text, written, following)


def after_export(options: ExportCommand, report: Report | None) -> Closing:
    """The ONNX, and the engine to build from it.

    Args:
        options: of the command.
        report: of the preflight; None: the ONNX has no Q/DQ.
    """
    verdict = ""
    if report is not None:
        verdict = "Preflight FAILED: see above what to change" if report.failed else "Preflight passed"
    mode = "fp16" if report is None else "qat"
    file = export_target(options)
    written = {file: "float ONNX, without Q/DQ" if report is None else "Q/DQ ONNX", **handed_over(options)}
    bench = ["bench-engine.py", file, "--modes", mode, *batch_words(options.graph), "--save-engine", "plans"]
    following = ["on the target:", command_line(*bench)]
    if options.triton is not None:
        following += ["where Triton runs, with its TensorRT:", triton_build(options, mode)]
    return Closing(None, verdict, written, following)


def batch_words(options: ExportOptions) -> list[str]:
    """What tells ``bench-engine.py`` the batch of an ONNX that leaves it open; it takes 1 otherwise."""
    return ["--batch", str(options.batch)] if options.dynamic and options.batch > 1 else []


def after_variants(folder: str, written: Sequence[VariantFile], failed: Sequence[str]) -> Closing:
    """The files, and how to time them on the target.

    Args:
        folder: of ``--variants``.
        written: what is in it.
        failed: names of those that the preflight refuses.
    """
    files = {
        str(Path(folder, entry.file)): "float ONNX, for FP16 and implicit PTQ"
        if entry.quantize is None
        else "Q/DQ ONNX"
        for entry in written
    }
    files[str(Path(folder, LIST_FILE))] = "what they are, and how to make each alone"
    verdict = f"Preflight FAILED for {', '.join(failed)}: see above" if failed else "Preflight passed"
    bench = command_line("bench-engine.py", "--tune", folder)
    return Closing(None, verdict, files, ["on the target, with this folder copied there:", bench])


def after_sensitive(name: str, options: SensitiveCommand, quantized: bool) -> Closing:
    """The ranking, and the PTQ to try.

    Args:
        name: "yolov5" or "yolov7".
        options: of the command.
        quantized: whether WEIGHT was; the PTQ then starts from the float checkpoint that it comes from.
    """
    policy: Sequence[str] = read_json(options.summary, "--summary")["ignore_policy"]
    written = {options.summary: "ranking", picture_file(options.summary): "the same as a picture"}
    following = []
    if len(policy) > len(options.placement.ignore_policy):
        weight = "FLOAT.pt" if quantized else options.weight
        images = [*data_words(options.images), "--imgsz", options.images.imgsz]
        words = command_line(f"qat-{name}.py", "quantize", weight, *images)
        following = [f"{words} --eval-origin --eval-ptq {policy_line(policy)}"]
    return Closing(None, "", written, following)


def after_test(options: EvaluationCommand, content: Mapping[str, Any]) -> Closing:
    """The figures.

    Args:
        options: of the command.
        content: what ``--save-json`` writes.
    """
    table = figures_table(options.weight, content)
    if "upstream_map" in content:
        own = [f"{content['upstream_map']:.4f}", f"{content['upstream_map50']:.4f}"]
        row = Row("upstream's own AP", [*own, *[""] * (len(table.columns) - len(own))])
        table = Table(table.columns, [*table.rows, row])
    written = {} if options.save_json is None else {options.save_json: "the figures, by class too"}
    if options.save_samples is not None:
        written[options.save_samples] = "what --against compares with"
    return Closing(table, content["conditions"], written)


def export_target(options: ExportCommand) -> str:
    """The ONNX that ``export`` writes."""
    return options.save or str(Path(options.weight).with_suffix(".onnx"))
