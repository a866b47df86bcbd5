"""The command deploy: the single commands in their order, in one run folder, and the report of it."""

from __future__ import annotations

import logging
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from quantization.cli.closings import batch_words, data_words
from quantization.cli.options import DeployCommand, ExportCommand, QuantizeCommand
from quantization.cli.resume import plain_record, refuse_changes, resumed_options
from quantization.cli.stages import run_export, run_quantize
from quantization.closing import Closing, command_line, tell
from quantization.data.dataset import cocodir_source, open_dataset
from quantization.data.headers import image_fault
from quantization.engine.versions import import_tensorrt
from quantization.errors import UserError
from quantization.evaluation.comparison import NamedImages, some_files
from quantization.evaluation.verdict import accuracy_table, boxes_warning, choose_checkpoint, has_wrong_boxes
from quantization.export.requirements import check_exportable
from quantization.export.target import for_target
from quantization.files import check_writable, write_json
from quantization.option_fields import make, record, typed_words
from quantization.options import DataOptions, ExportOptions
from quantization.report.folder import FILES, read_run, remove_results, run_file
from quantization.report.page import write_report
from quantization.signals import SIGNALS
from quantization.text import read_json
from quantization.upstream.checkout import UPSTREAMS

LOG = logging.getLogger("quantization")
SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


def deploy_command(name: str, options: DeployCommand) -> int:
    """All of it; see ``DeployCommand``."""
    folder = options.out
    if Path(folder).exists() and not Path(folder).is_dir():
        raise UserError(f"--out {folder} is a file: name a folder")
    for_target(graph_options(options))  # before the checkpoint, which takes longer
    for made in FILES:
        check_writable(run_file(folder, made), "--out", make_folder=False)
    lines = target_lines(name, options)
    resumed = ["deploy", options.weight, "--resume", "--out", folder]
    hint = f"; go on with: {command_line(f'qat-{name}.py', *resumed)}"

    def checked(model: nn.Module | None) -> None:
        if model is not None:  # refuses what cannot be exported, before hours of work
            check_exportable(model, graph_options(options))
        keep_record(name, options, lines)

    run_quantize(name, quantize_options(options), hint, checked)
    SIGNALS.hint = hint
    summary = read_json(run_file(folder, "summary"))
    verdict = choose_checkpoint(summary)
    passed = export_both(name, options, verdict.file)
    is_here = tensorrt_problem() is None
    done = is_here and run_lines(folder, lines[:-1])
    report, engine = write_report(folder), read_run(folder).engine_accuracy
    written = {run_file(folder, "model"): f"Q/DQ ONNX of {verdict.file}", report: "the report: open it in a browser"}
    following = [] if done else ["on the target, with this checkout and this folder:", *typed_lines(lines)]
    text = verdict.text if passed else f"{verdict.text}. The preflight FAILED: see above what to change"
    if has_wrong_boxes(engine):
        following = ["where TensorRT is, to find out where they go wrong:", locating_line(options, lines[0])]
    elif is_here and not done:
        text += ". A step with TensorRT FAILED: see above"
    table = accuracy_table(summary["figures"], verdict.key, engine)
    tell(Closing(table, f"{text}{boxes_warning(engine)}", written, following))
    return int(not passed or has_wrong_boxes(engine) or (is_here and not done))


def keep_record(name: str, options: DeployCommand, lines: list[list[str]]) -> None:
    """Write what ``--resume`` and the report have to know of this command; a new run starts without results of another."""
    if not options.resume:
        removed = remove_results(options.out)
        if removed:
            LOG.info("Removed, of an earlier run: %s", ", ".join(removed))
    command = command_line(f"qat-{name}.py", "deploy", *typed_words(replace(options, resume=False, restart=False)))
    content = {"options": plain_record(options), "command": command, "target": typed_lines(lines)}
    write_json(run_file(options.out, "record"), content)


def quantize_options(options: DeployCommand) -> QuantizeCommand:
    """The quantize of this run: all models measured, on squares as the engine sees images."""
    made = {
        "ptq": run_file(options.out, "ptq"),
        "qat": run_file(options.out, "qat") if options.qat else None,
        "summary": run_file(options.out, "summary"),
        "eval_origin": True,
        "eval_ptq": True,
        "square": True,
    }
    asked = make(QuantizeCommand, {**plain_record(options), **made})
    if not options.resume:
        return replace(asked, restart=options.restart)
    values = {**record(asked), "resume": True}
    if options.training.iters is None:  # the run has the number that followed from the data
        del values["iters"]
    return resumed_options(values)


def graph_options(options: DeployCommand) -> ExportOptions:
    """What both ONNX files are exported with.

    Raises:
        UserError: the exporter does not know the opset.
    """
    side = options.images.imgsz
    return replace(options.graph, size=(side, side), exporter=options.placement.exporter)


def export_both(name: str, options: DeployCommand, chosen: str) -> bool:
    """The chosen checkpoint and the float model as ONNX, with one graph's options; whether the preflight passed.

    Args:
        name: "yolov5" or "yolov7".
        options: of the command.
        chosen: the checkpoint to ship.
    """
    quantized = ExportCommand(chosen, run=options.run, graph=graph_options(options))
    images = usable_images(name, options.images)
    report = run_export(name, quantized, run_file(options.out, "model"), images)
    assert report is not None  # what quantize wrote is quantized
    write_json(run_file(options.out, "preflight"), report.to_dict())
    run_export(name, replace(quantized, weight=options.weight), run_file(options.out, "float model"), images)
    return report.passed


def usable_images(name: str, options: DataOptions) -> NamedImages | None:
    """Validation images to compare the ONNX with torch on, without what evaluation leaves out; None: none is left."""
    dataset = open_dataset(options.cocodir, options.data)
    files = [file for file in some_files(dataset.val) if not image_fault(file, name)]
    return NamedImages(dataset.source, files) if files else None


def target_lines(name: str, options: DeployCommand) -> list[list[str]]:
    """What is to be run where TensorRT is: scripts with their words. Build and time, mAP, drawings, report."""
    engines = Path(run_file(options.out, "bench")).parent
    several = batch_words(options.graph)
    plan = engines / (f"int8-b{options.graph.batch}.plan" if several else "int8.plan")
    iou = UPSTREAMS[name].iou if options.images.nmsthres is None else options.images.nmsthres
    bench = ["--engine", f"fp16=fp16:{run_file(options.out, 'float model')}"]
    bench += ["--engine", f"int8=qat:{run_file(options.out, 'model')}", *several, "--save-engine", str(engines)]
    for flag, what in (("--export-layer-info", "layer"), ("--export-profile", "profile")):
        bench += [flag, str(engines / f"{{name}}-{what}.json")]
    int8 = ["--layer", str(engines / "int8-layer.json"), "--profile", str(engines / "int8-profile.json")]
    fp16 = ["--layer", str(engines / "fp16-layer.json"), "--profile", str(engines / "fp16-profile.json")]
    second = ["--compare", int8[1], "--compare-profile", int8[3], "--names", "FP16", "INT8"]
    accuracy = ["--onnx", run_file(options.out, "model"), "--nmsthres", str(iou)]
    accuracy += ["--confidence", str(options.images.confidence)]
    accuracy += ["--objectness"] if UPSTREAMS[name].origin.objectness_only else []
    accuracy += ["--save-json", run_file(options.out, "engine accuracy")]
    return [
        ["bench-engine.py", *bench, "--reference", "fp16", "--json", run_file(options.out, "bench")],
        ["eval-engine.py", str(plan), *data_words(options.images), *accuracy],
        ["draw-engine.py", *int8, "--output", run_file(options.out, "drawing")],
        ["draw-engine.py", *fp16, *second, "--output", run_file(options.out, "comparison")],
        ["make-report.py", options.out],
    ]


def typed_lines(lines: list[list[str]]) -> list[str]:
    """``target_lines`` as they are typed."""
    return [command_line(*line) for line in lines]


def locating_line(options: DeployCommand, bench: list[str]) -> str:
    """The bench line of ``target_lines`` that also says where wrong boxes come from."""
    images = options.images.data
    if images is None:
        images = str(cocodir_source(Path(str(options.images.cocodir)), "val2017"))
    return command_line(*bench, "--check-images", images, "--locate")


def tensorrt_problem() -> str | None:
    """Why no engine can be built here; None: it can."""
    try:
        import_tensorrt()
    except UserError as error:
        LOG.info("No engine here: %s", error)
        return str(error)
    return None


def run_lines(folder: str, lines: list[list[str]]) -> bool:
    """Run ``target_lines``; whether all ended well. Without engines there is nothing for the others to do."""
    Path(run_file(folder, "engine accuracy")).unlink(missing_ok=True)  # says nothing of an engine that is built now
    return run_line(lines[0]) and all([run_line(line) for line in lines[1:]])


def run_line(line: list[str]) -> bool:
    """Run one of ``target_lines``; whether it ended well."""
    LOG.info("\n$ %s", command_line(*line))
    done = subprocess.run([sys.executable, str(SCRIPTS / line[0]), *line[1:]])
    if done.returncode:
        LOG.warning("%s ended with exit code %d; its output is above", line[0], done.returncode)
    return done.returncode == 0


def resumed_deploy(values: dict[str, Any]) -> DeployCommand:
    """Options of the run that ``--resume`` goes on with.

    Args:
        values: what the command line and ``--config`` give, by name.

    Raises:
        UserError: there is no run, and no data set to start one with; or an option is not what it was started with.
    """
    out = values.get("out", DeployCommand.out)
    file = run_file(out, "record")
    if Path(file).is_file():
        recorded: dict[str, Any] = read_json(file)["options"]
        if recorded["out"] != out:
            raise UserError(
                f"--resume: the run in {out} was started with --out {recorded['out']}: give that, in that folder"
            )
        refuse_changes(values, recorded, out)
        return make(DeployCommand, {**recorded, **values})
    if not {"cocodir", "data"} & set(values):
        raise UserError(f"--resume: there is no run in {out}: name its --out, or start one with all options")
    return make(DeployCommand, values)
