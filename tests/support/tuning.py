"""bench-engine.py --tune on the stand-ins for CUDA and TensorRT: a folder of variants, the command, what it keeps."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable

import pytest

from quantization.engine import cli as bench_cli
from quantization.engine.plans import file_hash
from quantization.engine.runtime import Engine
from quantization.engine.variant_folder import VariantFile, VariantFolder, write_variant_folder
from support.small_net import small_net

NAMES = ("default", "head-float", "stem-int8")
QUICK = ("--duration", "0.02", "--warmup", "0.01", "--rounds", "2")


@pytest.fixture(name="folder")
def folder_fixture(tmp_path: Path) -> Path:
    """What export --variants would have written: four networks that differ."""
    files = [VariantFile("float", "float.onnx", "", None, ("export", "best.pt"))]
    small_net(tmp_path / "float.onnx", "batch", side=4)
    for number, name in enumerate(NAMES):
        file = small_net(tmp_path / f"{name}.onnx", "batch", quantized=True, side=4)
        file.write_bytes(file.read_bytes() + b"\n" * number)
        words = ("quantize", "best.pt", *(("--head", "float") if name == "head-float" else ()))
        files.append(VariantFile(name, file.name, "", words, ("export", "ptq.pt", "--dynamic")))
    listed = [VariantFile(*{**vars(f), "sha256": file_hash(str(tmp_path / f.file))}.values()) for f in files]
    write_variant_folder(str(tmp_path), VariantFolder("yolov5", (4, 4), ("a", "b"), 0.6, tuple(listed)))
    return tmp_path


@pytest.fixture(name="trt")
def trt_fixture(fake_cuda: Callable[[], None], fake_trt: Callable[[], Any]) -> Any:
    fake_cuda()
    return fake_trt()


class Meter:
    """Gives each engine a mAP and counts what it measures; ``known``: whether the reference is from an earlier run."""

    def __init__(self, known: bool = False, key: str = "data") -> None:
        self.key, self.known = key, known
        self.measured: list[str] = []

    def knows_reference(self) -> bool:
        return self.known

    def __call__(self, engine: Engine, name: str) -> dict[str, Any]:
        self.measured.append(name)
        points = {} if name == "fp16" else {"points": -0.1 * len(name), "plus_minus": 0.05}
        return {"map": 0.5 - 0.001 * len(name), "map50": 0.7, **points}


def tune(folder: Path, *more: str, meter: Meter | None = None) -> int:
    """The command; with a meter on some data."""
    data = [] if meter is None else ["--data", "data.yaml", "--calib-cache", str(folder / "calib")]
    arguments = ["--tune", str(folder), *QUICK, *data, *more]
    return bench_cli.main(arguments, make_meter=lambda *_: meter)  # type: ignore[arg-type]


def recorded(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "tune.json").read_text())
    return content


def change(folder: Path, name: str) -> None:
    """Another content, of the same form."""
    file = folder / f"{name}.onnx"
    file.write_bytes(file.read_bytes() + b"\n\n")


def list_as_it_is(folder: Path, name: str) -> None:
    """As if it had been exported so."""
    listed = json.loads((folder / "variants.json").read_text())
    entry = next(entry for entry in listed["variants"] if entry["name"] == name)
    entry["sha256"] = file_hash(str(folder / f"{name}.onnx"))
    (folder / "variants.json").write_text(json.dumps(listed))
