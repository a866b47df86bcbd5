"""variants.json: written and read back, and refused where it is damaged or the files are others."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Callable

import pytest

from quantization.engine.plans import file_hash
from quantization.engine.variant_folder import (
    LIST_FILE,
    VariantFile,
    VariantFolder,
    read_variant_folder,
    write_variant_folder,
)
from quantization.errors import UserError


@pytest.fixture
def written(tmp_path: Path) -> VariantFolder:
    files = []
    for name in ("float", "default"):
        file = tmp_path / f"{name}.onnx"
        file.write_bytes(name.encode())
        words = None if name == "float" else ("quantize", "best.pt", "--ignore-policy", r"model\.2\..*")
        files.append(VariantFile(name, file.name, file_hash(str(file)), words, ("export", "ptq.pt")))
    folder = VariantFolder("yolov7", (320, 640), ("cat", "dog"), 0.65, tuple(files))
    write_variant_folder(str(tmp_path), folder)
    return folder


def test_what_is_read_is_what_was_written(written: VariantFolder, tmp_path: Path) -> None:
    assert read_variant_folder(str(tmp_path)) == written


def entry(change: Callable[[Any], object]) -> Callable[[Any], object]:
    """A change of the second variant's entry."""
    return lambda content: change(content["variants"][1])


DAMAGE = {
    "another key": lambda content: content.update(more=1),
    "a key less": lambda content: content.pop("iou"),
    "upstream": lambda content: content.update(upstream="yolov8"),
    "size": lambda content: content.update(size=[640]),
    "size of floats": lambda content: content.update(size=[640.0, 640.0]),
    "size zero": lambda content: content.update(size=[0, 640]),
    "names": lambda content: content.update(names={"0": "cat"}),
    "iou": lambda content: content.update(iou=2),
    "iou text": lambda content: content.update(iou="0.6"),
    "no variants": lambda content: content.update(variants=[]),
    "too many": lambda content: content.update(variants=content["variants"] * 20),
    "float missing": lambda content: content["variants"].pop(0),
    "float quantized": lambda content: content["variants"][0].update(quantize=[]),
    "two of a name": lambda content: content["variants"].append(content["variants"][1]),
    "no mapping": lambda content: content["variants"].append("default"),
    "a file elsewhere": entry(lambda part: part.update(file="../default.onnx")),
    "a hidden file": entry(lambda part: part.update(file=".default.onnx")),
    "no ONNX": entry(lambda part: part.update(file="default.plan")),
    "a name that is a path": entry(lambda part: part.update(name="a/b")),
    "no name": entry(lambda part: part.update(name="")),
    "words": entry(lambda part: part.update(quantize="quantize best.pt")),
    "words of numbers": entry(lambda part: part.update(export=[1])),
    "an entry less": entry(lambda part: part.pop("sha256")),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_list_is_refused(written: VariantFolder, tmp_path: Path, damage: Callable[[Any], object]) -> None:
    file = tmp_path / LIST_FILE
    content = json.loads(file.read_text())
    damage(content)
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"is damaged, or no list of variants") as error:
        read_variant_folder(str(tmp_path))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text, words",
    [("{", "not valid JSON"), ("[]", "damaged"), ('{"format": 2}', "update quant-tools"), ('{"format": 0}', "damaged")],
)
def test_what_is_no_list_is_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / LIST_FILE).write_text(text)
    with pytest.raises(UserError, match=words):
        read_variant_folder(str(tmp_path))


def test_files_must_be_those_that_were_exported(written: VariantFolder, tmp_path: Path) -> None:
    (tmp_path / "default.onnx").write_bytes(b"cut of")
    with pytest.raises(UserError, match=r"default\.onnx is not what was exported"):
        read_variant_folder(str(tmp_path))
    (tmp_path / "default.onnx").unlink()
    with pytest.raises(UserError, match=r"default\.onnx is missing"):
        read_variant_folder(str(tmp_path))
    (tmp_path / LIST_FILE).unlink()
    with pytest.raises(UserError, match=r"holds no variants\.json"):
        read_variant_folder(str(tmp_path))
