"""The command line of benchmarks/accuracy.py, and what must hold of it."""

from __future__ import annotations

import argparse
from pathlib import Path

from accuracy_jobs import read_json, write_json
from accuracy_plan import MODELS, runs
from bundle import BUNDLE

from quantization.calibration.histograms import METHODS
from quantization.errors import UserError

STAGES = ("train", "quantize", "engines", "report")
SETTINGS = (
    "images",
    "val_images",
    "test_images",
    "imgsz",
    "draw_size",
    "classes",
    "objects",
    "difficulty",
    "largest",
    "epochs",
    "batch_size",
    "lr",
    "mosaic",
)  # they determine data and training


def named(text: str) -> tuple[str, str]:
    """Argparse type: NAME=TEXT, the name fit for a file."""
    name, equals, value = text.partition("=")
    if not equals or not name.replace("-", "").replace("_", "").isalnum():
        raise argparse.ArgumentTypeError(f"{text} is not of the form NAME=..., the name of letters, digits, - and _")
    return name, value


def build_parser(description: str = "") -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, metavar="DIR", help="data, checkouts, models, figures")
    parser.add_argument(
        "--stages",
        nargs="+",
        choices=STAGES,
        default=list(STAGES),
        help="default: all; engines needs --tensorrt-python",
    )
    parser.add_argument("--out", type=Path, default=BUNDLE / "benchmarks" / "results" / "accuracy", metavar="DIR")
    parser.add_argument("--name", default="accuracy", help="of the report's files (default: %(default)s)")
    parser.add_argument("--device", help="cpu, 0 ...; default: each script's own choice")
    parser.add_argument("--jobs", type=int, default=1, help="processes side by side (default: %(default)s)")
    _add_training(parser.add_argument_group("data and training"))
    _add_quantization(parser.add_argument_group("quantization"))
    _add_bundles(parser.add_argument_group("other bundles"))
    _add_tensorrt(parser.add_argument_group("TensorRT"))
    return parser


def _add_training(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--models", nargs="+", choices=tuple(MODELS), default=["yolov5s", "yolov7-tiny"])
    group.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    group.add_argument("--images", type=int, default=4000, help="to train on (default: %(default)s)")
    group.add_argument("--val-images", type=int, default=200, help="QAT's epoch is chosen by (default: %(default)s)")
    group.add_argument("--test-images", type=int, default=500, help="figures come from (default: %(default)s)")
    group.add_argument("--imgsz", type=int, default=320, help="of the networks (default: %(default)s)")
    group.add_argument("--draw-size", type=int, help="long side of the drawn images (default: 1.25 times --imgsz)")
    group.add_argument("--classes", type=int, default=30, help="(default: %(default)s)")
    group.add_argument("--objects", type=int, default=10, help="mean objects per image (default: %(default)s)")
    group.add_argument("--difficulty", type=float, default=0.7, help="0 to 1 (default: %(default)s)")
    group.add_argument(
        "--largest",
        type=float,
        default=0.35,
        help="diameter of the largest objects, as a fraction of the image (default: %(default)s)",
    )
    group.add_argument("--epochs", type=int, default=30, help="2 or more (default: %(default)s)")
    group.add_argument("--batch-size", type=int, default=64, help="of the training (default: %(default)s)")
    group.add_argument("--lr", type=float, default=0.004, help="highest learning rate (default: %(default)s)")
    group.add_argument("--mosaic", type=float, default=0.0, help="share of mosaics in training (default: %(default)s)")
    group.add_argument("--loader-workers", type=int, default=4, help="of train.py (default: %(default)s)")


def _add_quantization(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--methods",
        nargs="+",
        choices=METHODS,
        default=list(METHODS),
        help="calibrators; the first one is QAT's too (default: all)",
    )
    group.add_argument(
        "--mosaic-images",
        type=int,
        default=500,
        help="augmented images to choose calibration images from; 0: none (default: %(default)s)",
    )
    group.add_argument("--quantize-options", default="", metavar="TEXT", help="more options of every quantize")
    group.add_argument("--qat-epochs", type=int, default=5, help="0: no QAT (default: %(default)s)")
    group.add_argument("--qat-iters", type=int, default=100, help="steps per epoch (default: %(default)s)")
    group.add_argument("--qat-options", default="", metavar="TEXT", help="more options of every QAT")
    group.add_argument(
        "--variant",
        action="append",
        type=named,
        default=[],
        metavar="NAME=TEXT",
        help="a further QAT with these options; can be repeated",
    )
    group.add_argument(
        "--runtimes",
        nargs="+",
        choices=("torch", "onnxruntime"),
        default=["torch", "onnxruntime"],
        help="where the stage quantize evaluates (default: both)",
    )
    group.add_argument(
        "--test-batch", type=int, default=32, help="images per batch in evaluation (default: %(default)s)"
    )


def _add_bundles(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--bundle",
        action="append",
        default=[],
        metavar="[NAME=]DIR",
        help="folder with quantization/ and scripts/, run by the published commands; can be repeated",
    )
    group.add_argument(
        "--bundle-options",
        action="append",
        type=named,
        default=[],
        metavar="NAME=TEXT",
        help="more options of that bundle's quantize",
    )


def _add_tensorrt(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--tensorrt-python", metavar="PYTHON", help="a Python that has TensorRT; it needs no torch")
    group.add_argument("--tensorrt-options", default="", metavar="TEXT", help="more options of bench-engine.py")
    group.add_argument(
        "--tensorrt-runs",
        nargs="+",
        metavar="RUN",
        help="default: float, the first calibrator, qat and its variants, other bundles",
    )
    group.add_argument("--tensorrt-batch", type=int, default=16, help="of the engines (default: %(default)s)")


def check(options: argparse.Namespace) -> None:
    """Complete the options.

    Raises:
        UserError: they are not consistent, or a bundle is none.
    """
    options.work, options.out = options.work.resolve(), options.out.resolve()
    options.draw_size = options.draw_size or options.imgsz * 5 // 4
    if options.epochs < 2 or options.jobs < 1 or options.imgsz % 32 or options.qat_epochs < 0:
        raise UserError("--epochs must be at least 2, --jobs 1, --qat-epochs 0, and --imgsz a multiple of 32")
    bundles: dict[str, Path] = {}
    for text in options.bundle:
        name, _equals, folder = text.rpartition("=")
        path = Path(folder).resolve()
        name = name or path.name
        if not (path / "quantization").is_dir() or not (path / "scripts").is_dir():
            raise UserError(f"--bundle {text}: {folder} has no quantization/ and scripts/: name the folder with both")
        bundles[name] = path
    if len(bundles) < len(options.bundle):
        raise UserError("two bundles have one name: give --bundle NAME=DIR")
    if len(dict(options.variant)) < len(options.variant):
        raise UserError("two --variant have one name: rename one")
    options.bundle, options.variant = bundles, dict(options.variant)
    options.bundle_options = dict(options.bundle_options)
    for name in options.bundle_options:
        if name not in bundles:
            raise UserError(f"--bundle-options {name}=...: there is no --bundle {name}")
    names = [run.name for run in runs(options)]
    if len(set(names)) < len(names):
        raise UserError(f"two runs have one name ({', '.join(names)}): rename a --variant or --bundle")
    unknown = sorted(set(options.tensorrt_runs or ()) - set(names))
    if unknown:
        raise UserError(f"--tensorrt-runs {unknown[0]} is none of {', '.join(names)}")


def check_settings(options: argparse.Namespace) -> dict[str, object]:
    """What data and training depend on; the same in every call for a work folder.

    Raises:
        UserError: an earlier call had others.
    """
    settings = {name: getattr(options, name) for name in SETTINGS}
    before = read_json(options.work / "settings.json", settings)
    for name, value in settings.items():
        if before.get(name) != value:
            raise UserError(
                f"{options.work} was made with --{name.replace('_', '-')} {before.get(name)}, not {value}: "
                "use that, or another --work"
            )
    write_json(options.work / "settings.json", settings)
    return settings
