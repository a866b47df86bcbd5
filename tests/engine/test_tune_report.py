"""The table of a tuning run, the Pareto front by brute force, and which engine is chosen."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from quantization.engine.tune_report import (
    choose_engine,
    faster_than_reference,
    pareto_front,
    reuse_lines,
    tune_table,
    verdict_lines,
)
from quantization.engine.variant_folder import VariantFile, VariantFolder
from quantization.tables import table_text

FOLDER = VariantFolder(
    "yolov7",
    (640, 640),
    ("a",),
    0.65,
    (
        VariantFile("float", "float.onnx", "", None, ("export", "best.pt")),
        VariantFile(
            "sums", "sums.onnx", "", ("quantize", "best.pt", "--ignore-policy", r".*\.addop"), ("export", "ptq.pt")
        ),
    ),
)


def engine(name: str, speeds: tuple[float, float, float], accuracy: float | None = None, mode: str = "qat") -> Any:
    """An engine that did so many images a second: median, least, most; FP16 does 100."""
    median, least, most = speeds
    entry: dict[str, Any] = {"name": name, "mode": mode, "onnx": f"d/{name}.onnx", "engine_bytes": 2e6}
    entry["images_per_s"] = {"median": median, "min": least, "max": most}
    entry["ratio"] = {"median": median / 100, "min": least / 100, "max": most / 100}
    if accuracy is not None:
        entry["accuracy"] = {"map": accuracy}
        if name != "fp16":
            entry["accuracy"].update(points=100 * (accuracy - 0.4), plus_minus=0.25)
    return entry


FP16 = engine("fp16", (100, 100, 100), 0.4, "fp16")


def test_the_front_is_what_nothing_beats_in_both() -> None:
    random = np.random.RandomState(0)
    for _ in range(50):
        engines = [engine(str(n), (float(s), 0, 0), float(a)) for n, (s, a) in enumerate(random.randint(0, 6, (7, 2)))]
        points = {item["name"]: (item["images_per_s"]["median"], item["accuracy"]["map"]) for item in engines}
        beaten = {
            mine
            for mine, other in itertools.permutations(points, 2)
            if points[mine] != points[other] and all(np.array(points[other]) >= np.array(points[mine]))
        }
        assert set(pareto_front(engines)) == set(points) - beaten
    assert pareto_front([engine("a", (1, 1, 1))]) == []


def test_the_fastest_within_the_drop_is_chosen() -> None:
    engines = [FP16, engine("fast", (150, 140, 160), 0.38), engine("sums", (130, 120, 140), 0.395)]
    chosen = {drop: choose_engine(engines, drop) for drop in (0.1, 1.0, 2.5)}
    assert {drop: found and found["name"] for drop, found in chosen.items()} == {0.1: "fp16", 1.0: "sums", 2.5: "fast"}
    without = [{key: value for key, value in item.items() if key != "accuracy"} for item in engines]
    found = choose_engine(without, 0.1)
    assert found is not None and found["name"] == "fast"
    # an engine whose accuracy is not known is not taken where those of others are
    found = choose_engine([*engines, engine("unknown", (900, 900, 900))], 1.0)
    assert found is not None and found["name"] == "sums"
    assert choose_engine([{"name": "a", "mode": "qat", "problem": "no"}], 1.0) is None


def test_it_says_when_no_int8_engine_beats_fp16_in_every_round() -> None:
    noisy = [FP16, engine("sums", (103, 99, 107)), engine("ptq", (90, 89, 91), mode="ptq")]
    assert faster_than_reference(noisy) == []
    lines = verdict_lines(noisy, 1.0)
    assert lines[0].startswith("No INT8 engine beats FP16") and lines[1].startswith("Fastest of those timed: sums, 103")
    assert lines[2] == "As fast within the spread of the rounds: fp16."
    clear = [FP16, engine("sums", (103, 101, 107)), {"name": "ptq", "mode": "ptq", "problem": "no images"}]
    assert faster_than_reference(clear) == ["sums"]
    assert verdict_lines(clear, 1.0) == [
        "ptq: no images",
        "Fastest of those timed: sums, 103 images/s, 1.030 times FP16.",
    ]
    assert verdict_lines([{"name": "a", "mode": "qat", "problem": "no"}], 1.0)[-1] == "No engine could be timed."


def test_the_table_has_what_is_known() -> None:
    failed = {"name": "bad", "mode": "qat", "onnx": "bad.onnx", "problem": "too large"}
    skipped = {"name": "ptq", "mode": "ptq", "problem": "no images"}
    text = table_text(tune_table([FP16, engine("sums", (130, 120, 140), 0.395), failed, skipped])).splitlines()
    assert text[0].split() == "mode images/s (min-max) x fp16 (min-max) mAP - fp16, points front MB build s".split()
    assert text[1].split() == "fp16 fp16 100 100-100 1.000 1.000-1.000 0.4000 - * 2.0 -".split()
    assert text[2].split() == "sums qat 130 120-140 1.300 1.200-1.400 0.3950 -0.50 +- 0.25 * 2.0 -".split()
    assert text[3].split()[:3] == ["bad", "qat", "failed"] and text[4].split()[:3] == ["ptq", "ptq", "skipped"]
    plain = table_text(tune_table([engine("sums", (130, 120, 140))]))
    assert "mAP" not in plain and "front" not in plain


def test_the_commands_to_reuse() -> None:
    assert reuse_lines(engine("sums", (1, 1, 1)), FOLDER) == [
        r"python scripts/qat-yolov7.py quantize best.pt --ignore-policy '.*\.addop'",
        "python scripts/qat-yolov7.py export ptq.pt",
    ]
    assert reuse_lines(engine("float", (1, 1, 1)), FOLDER) == ["python scripts/qat-yolov7.py export best.pt"]
    assert reuse_lines(engine("modelopt", (1, 1, 1)), FOLDER) == []
    assert reuse_lines({"name": "old", "onnx": None}, FOLDER) == []
