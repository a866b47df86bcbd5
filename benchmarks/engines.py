"""The published benchmark: FP16, implicit PTQ, Q/DQ without rules and with rules, on one GPU. Needs TensorRT, no torch.

``run`` builds the ONNX files of benchmarks/engine_models.py and times all engines of a network in one interleaved run;
``report`` writes the table and the pictures. Example, for models in nets/yolov5s and nets/yolov7:

    python benchmarks/engines.py run nets/yolov5s nets/yolov7
    python benchmarks/engines.py report nets/yolov5s nets/yolov7 --out imgs
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path
from typing import Any, Sequence

from bundle import BUNDLE
from command_lines import flagged

from quantization.engine import cli as bench_cli
from quantization.engine.timing_cache import TimingCache
from quantization.errors import UserError, run_main
from quantization.files import atomic_write
from quantization.inspector.layers import read_export

SCRIPTS = BUNDLE / "scripts"
TITLES = {
    "fp16": "FP16",
    "ptq": "implicit PTQ",
    "no-rule": "Q/DQ without rules",
    "rule": "Q/DQ with rules",
    "groups": "scale groups alone",
    "stem-int8": "rules, stem in INT8",
    "stem-pair": "rules, stem in INT8, Q/DQ before its activation",
    "act-pairs": "rules, stem in INT8, Q/DQ before all activations",
    "plain-silu": "rules, SiLU of the stem as upstream writes it",
    "head-float": "rules, head's inputs in float",
    "head-shared": "rules, all shared inputs of the head in INT8",
    "head-input": "rules, all of the head's inputs in INT8",
    "head-int8": "rules, detect convolutions in INT8",
    "shortcut": "rules, shortcut operand alone",
    "no-add": "rules, sums unquantized",
    "no-upsample": "rules, Upsamples unquantized",
}
ORDER = tuple(TITLES)


def needed(net: Path, file: str, maker: str = "benchmarks/engine_models.py") -> Path:
    """A file of a network's folder; raises a UserError that names its maker if it is missing."""
    if not (net / file).is_file():
        raise UserError(f"{net} has no {file}: {maker} writes it")
    return net / file


def engines(net: Path, only: Sequence[str] | None) -> dict[str, str]:
    """Engine name to bench-engine.py's NAME=MODE:FILE, for the ONNX files that the folder has, in the order asked."""
    needed(net, "float.onnx")
    found = {}
    for name in only or ORDER:
        file = net / ("float.onnx" if name in ("fp16", "ptq") else f"{name}.onnx")
        if file.is_file():
            found[name] = f"{name}={name if name in ('fp16', 'ptq') else 'qat'}:{file}"
    return found


def run(options: argparse.Namespace) -> int:
    """Per network, build and then time in this process, which loads TensorRT's kernels once. Plans are reused."""
    timings = TimingCache()
    for net in options.nets:
        flags: dict[str, object] = {
            "--save-engine": net / "plans",
            "--opt-level": options.opt_level,
            "--no-tf32": None,
            "--json": net / "bench.json",
        }
        calibration: dict[str, object] = {"--calib-images": net / "calib.npy", "--calib-cache": net / "float.calib"}
        timing: dict[str, object] = {
            "--rounds": options.rounds,
            "--duration": options.duration,
            "--export-layer-info": net / "{name}-layer.json",
            "--export-profile": net / "{name}-profile.json",
        }
        found = engines(net, options.engines)
        flags.update(calibration if "ptq" in found else {})
        flags.update({"--build-only": None} if options.build_only else timing)
        command = flagged(flags)
        command += ["--tactics", options.tactics] if options.tactics else []
        for text in found.values():
            command += ["--engine", text]
        bench_cli.main(command, timings)
    return 0


def table(net: Path) -> str:
    """One network's figures as a Markdown table."""
    models = read_export(needed(net, "models.json"))
    content: dict[str, Any] = read_export(needed(net, "bench.json", "the run command"))
    figures = {engine["name"]: engine for engine in content["engines"] if "qps" in engine}
    fp16 = figures.get("fp16")
    lines = [
        f"{models['net']}, {models['weights']} weights, {models['size']} x {models['size']}, batch "
        f"{content['batch']}, {content['gpu']}, TensorRT {content['versions']['tensorrt']}, "
        f"{content['timing']['rounds']} interleaved rounds of {content['timing']['duration']:g} s",
        "",
        f"| engine | images/s | min-max | x {TITLES[content['reference']]} | x FP16 |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, engine in sorted(figures.items(), key=lambda item: ORDER.index(item[0])):
        images = engine["images_per_s"]
        against = f"{images['median'] / fp16['images_per_s']['median']:.3f}" if fp16 else "-"
        lines.append(
            f"| {TITLES[name]} | {images['median']:.0f} | {images['min']:.0f}-{images['max']:.0f} | "
            f"{engine['ratio']['median']:.3f} | {against} |"
        )
    return "\n".join(lines)


def draw_net(net: Path, out: Path) -> None:
    """A drawing of each engine of a network, and a page that compares each Q/DQ engine with implicit PTQ."""

    def draw(output: str, *flags: str) -> None:
        subprocess.run(
            [sys.executable, str(SCRIPTS / "draw-engine.py"), *flags, f"--output={out / f'{net.name}-{output}'}"],
            check=True,
        )

    def files(name: str, layer: str = "layer", profile: str = "profile") -> list[str]:
        return [f"--{layer}={net / f'{name}-layer.json'}", f"--{profile}={net / f'{name}-profile.json'}"]

    drawn = [name for name in ORDER if (net / f"{name}-layer.json").is_file()]
    for name in drawn:
        draw(f"{name}.svg", *files(name))
        if name not in ("ptq", "fp16") and "ptq" in drawn:
            draw(f"ptq-{name}.html", *files("ptq"), *files(name, "compare", "compare-profile"), "--names", "ptq", name)


def report(options: argparse.Namespace) -> int:
    """Tables to engines.md, then drawings and comparisons of every network."""
    options.out.mkdir(parents=True, exist_ok=True)
    with atomic_write(options.out / "engines.md") as temporary:
        Path(temporary).write_text("\n\n".join(table(net) for net in options.nets) + "\n")
    for net in options.nets:
        draw_net(net, options.out)
    return 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.required = True
    runner = commands.add_parser("run", help="build and time")
    runner.add_argument("--engines", nargs="+", choices=ORDER, help="only these, in this order")
    runner.add_argument("--build-only", action="store_true", help="time nothing")
    runner.add_argument("--opt-level", type=int, default=3, help="builder optimization level")
    runner.add_argument("--tactics", help="tactic sources, EDGE_MASK_CONVOLUTIONS|JIT_CONVOLUTIONS")
    runner.add_argument("--rounds", type=int, default=5)
    runner.add_argument("--duration", type=float, default=2.0, help="seconds per engine and round")
    reporter = commands.add_parser("report", help="tables and pictures")
    reporter.add_argument("--out", type=Path, default=BUNDLE / "imgs")
    for command in (runner, reporter):
        command.add_argument("nets", nargs="+", type=Path, help="folders of benchmarks/engine_models.py")
    options = parser.parse_args(arguments)
    return run(options) if options.command == "run" else report(options)


if __name__ == "__main__":
    run_main(main)
