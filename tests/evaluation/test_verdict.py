"""Which checkpoint is shipped, and how distances to the float model are worded."""

from __future__ import annotations

from typing import Any

import pytest

from quantization.evaluation.verdict import accuracy_table, against_float, choose_checkpoint


def summary(file: str | None = "qat.pt", **maps: float) -> dict[str, Any]:
    figures = {key: {"map": value, "map50": value + 0.1} for key, value in maps.items()}
    return {"figures": figures, "options": {"ptq": "ptq.pt", "qat": file}}


@pytest.mark.parametrize(
    "content, key, text",
    [
        (
            summary(float=0.5, ptq=0.49, qat=0.495),
            "qat",
            "Ship qat.pt: QAT, 0.50 points below float; 0.50 points above PTQ",
        ),
        (summary(float=0.5, ptq=0.5, qat=0.5), "ptq", "Ship ptq.pt: PTQ, level with float; level with QAT"),
        (
            summary(float=0.5, ptq=0.51, qat=0.4),
            "ptq",
            "Ship ptq.pt: PTQ, 1.00 points above float; 11.00 points above QAT",
        ),
        (summary(qat=0.5), "qat", "Ship qat.pt: QAT, PTQ was not measured: --eval-ptq"),
        (summary(None, ptq=0.5), "ptq", "Ship ptq.pt: PTQ"),
        (summary(None), "ptq", "Ship ptq.pt, unmeasured: --eval-origin --eval-ptq give its mAP and the float model's"),
    ],
)
def test_the_better_one_is_shipped(content: dict[str, Any], key: str, text: str) -> None:
    verdict = choose_checkpoint(content)
    assert (verdict.key, verdict.file, verdict.text) == (key, content["options"][key], text)


@pytest.mark.parametrize(
    "points, shipped, text", [(0.6, "qat", ""), (0.4, "ptq", ", within the noise"), (-0.6, "ptq", "")]
)
def test_qat_has_to_be_better_beyond_the_noise(points: float, shipped: str, text: str) -> None:
    content = summary(ptq=0.5, qat=0.51)
    content["figures"]["qat"]["against"] = {"ptq": {"merged": {"points": points, "plus_minus": 0.5}}}
    verdict = choose_checkpoint(content)
    assert verdict.key == shipped
    assert f"{points:+.2f} +- 0.50 points against PTQ, classes merged{text}" in verdict.text


@pytest.mark.parametrize("points, text", [(-0.4, ", within the noise"), (-0.6, "")])
def test_the_distance_to_float_has_its_interval(points: float, text: str) -> None:
    content = summary(None, float=0.5, ptq=0.49)
    content["figures"]["ptq"]["against"] = {"float": {"map": {"points": points, "plus_minus": 0.5}}}
    assert choose_checkpoint(content).text == f"Ship ptq.pt: PTQ, {points:+.2f} +- 0.50 points against float{text}"


def test_distances_say_their_direction() -> None:
    assert against_float(1.449) == "1.45 points below float"
    assert against_float(-1.449) == "1.45 points above float"
    assert against_float(0.004) == against_float(-0.004) == "level with float"


def test_the_table_has_what_was_measured() -> None:
    table = accuracy_table(summary(float=0.5, qat=0.48)["figures"], "qat")
    assert [(row.label, *row.cells) for row in table.rows] == [
        ("float", "0.5000", "0.6000", ""),
        ("QAT, to ship", "0.4800", "0.5800", "-2.00 points"),
    ]
    assert [row.cells[2] for row in accuracy_table(summary(ptq=0.5)["figures"]).rows] == [""]
