"""Make an upstream checkout to run the bundle in, without a network beyond PyPI.

Source: the clone that ``YOLOV5_DIR`` or ``YOLOV7_DIR`` names, otherwise the PyPI package of the same code, with its
package prefix taken off the imports and the files that it lacks written from our own tables.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import yaml
from matplotlib import font_manager
from yolov7_cfg import yolov7, yolov7_tiny

BUNDLE = Path(__file__).resolve().parents[1]
HYP = Path(__file__).resolve().parent / "hyp-shapes.yaml"  # training settings for train.py of either upstream


class Package(NamedTuple):
    """A PyPI package that holds an upstream's code."""

    requirement: str
    root: str  # folder of the import package in the unpacked archive
    not_upstream: tuple[str, ...]  # what the packagers added


PACKAGES = {
    "yolov5": Package("yolov5==7.0.0", "yolov5", ("__init__.py", "cli.py", "helpers.py", "benchmarks.py")),
    "yolov7": Package("yolov7detect==1.0.1", "yolov7detect-1.0.1/yolov7", ("__init__.py", "helpers.py")),
}


def make_checkout(upstream: str, folder: str | Path) -> Path:
    """Make an upstream checkout as a user has it before copying the bundle.

    Args:
        upstream: "yolov5" or "yolov7".
        folder: where; must not exist.

    Returns:
        ``folder``.

    Raises:
        FileNotFoundError: the environment variable names no clone.
        subprocess.CalledProcessError: pip could not download the package.
    """
    folder = Path(folder)
    clone = os.environ.get(f"{upstream.upper()}_DIR")
    if clone:
        if not (Path(clone) / "models" / "yolo.py").is_file():
            raise FileNotFoundError(f"{upstream.upper()}_DIR={clone} is no {upstream} clone: models/yolo.py is missing")
        shutil.copytree(clone, folder, ignore=shutil.ignore_patterns(".git", "__pycache__"))
    else:
        package = PACKAGES[upstream]
        ignore = shutil.ignore_patterns("__pycache__")
        shutil.copytree(_unpacked(package) / package.root, folder, ignore=ignore)
        for name in package.not_upstream:
            (folder / name).unlink()
        for path in folder.rglob("*.py"):
            path.write_text(strip_prefix(path.read_text(encoding="utf-8"), upstream), encoding="utf-8")
        {"yolov5": _complete_yolov5, "yolov7": _complete_yolov7}[upstream](folder)
    if upstream == "yolov5":
        # check_dataset downloads this font unless the current folder has one; its plots accept any font of the name
        shutil.copyfile(font_manager.findfont("DejaVu Sans"), folder / "Arial.ttf")
    return folder


def install_bundle(checkout: Path, bundle: Path = BUNDLE) -> None:
    """What ``cp -r quantization scripts CHECKOUT`` does in this bundle's folder, or in another one's."""
    for name in ("quantization", "scripts"):
        shutil.copytree(
            bundle / name, checkout / name, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True
        )


def strip_prefix(source: str, package: str) -> str:
    """Take the package's name off a module's imports: ``from yolov5.utils.general import x`` and the like."""
    source = re.sub(rf"\bfrom {package}\.(?=\w)", "from ", source)
    source = re.sub(rf"\bimport {package}\.(?=\w)", "import ", source)
    return re.sub(rf"\bfrom {package} import __version__", '__version__ = "7.0.0"', source)


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "quant-tools"


def _unpacked(package: Package) -> Path:
    """Folder of the unpacked archive, downloaded on first use."""
    target = _cache() / package.requirement
    if target.is_dir():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=str(target.parent)) as temporary:
        download, unpacked = Path(temporary) / "download", Path(temporary) / "unpacked"
        command = [
            sys.executable,
            "-m",
            "pip",
            "download",
            "--quiet",
            "--no-deps",
            "--no-build-isolation",
            "--dest",
            str(download),
            package.requirement,
        ]
        subprocess.run(command, check=True, stdout=sys.stderr)
        archive = next(download.iterdir())
        shutil.unpack_archive(str(archive), str(unpacked), "zip" if archive.suffix == ".whl" else "gztar")
        try:
            unpacked.rename(target)
        except OSError:
            if not target.is_dir():  # otherwise another process was faster: use its copy
                raise
    return target


def _replace(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    if text.count(old) != 1:
        raise ValueError(f"{path}: {old!r} occurs {text.count(old)} times, expected once")
    path.write_text(text.replace(old, new), encoding="utf-8")


def _complete_yolov5(folder: Path) -> None:
    """Nothing is missing for train.py and val.py but the layout's requirements.txt, which train.py's check reads."""
    (folder / "requirements.txt").write_text("")


def _complete_yolov7(folder: Path) -> None:
    """Add the configurations, and undo two of the packagers' changes."""
    (folder / "utils" / "__init__.py").write_text("")  # theirs imports wandb_logging, in a circle without the prefix
    # theirs loads the whole list instead of each of its files, so `test.py --weights x.pt` fails
    _replace(folder / "models" / "experimental.py", "torch.load(weights, map_location", "torch.load(w, map_location")
    for name, table in (("yolov7", yolov7), ("yolov7-tiny", yolov7_tiny)):
        for kind, head in (("training", "IDetect"), ("deploy", "Detect")):
            path = folder / "cfg" / kind / f"{name}.yaml"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(yaml.safe_dump(table(head), default_flow_style=None, sort_keys=False))
    (folder / "scripts").mkdir()  # upstream has one too: `cp -r scripts` must merge with it
    (folder / "scripts" / "get_coco.sh").write_text("#!/bin/sh\n")
