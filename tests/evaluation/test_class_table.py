"""AP by class for a terminal."""

from __future__ import annotations

from quantization.evaluation.class_table import class_text


def test_classes_without_boxes_are_one_line() -> None:
    per_class = {"cat": 0.5, "dog": 0.25, **{f"none {number}": -1.0 for number in range(10)}}
    widths = {name: None if value < 0 else 0.01 for name, value in per_class.items()}
    content = {"per_class": per_class, "boxes": dict.fromkeys(per_class, 7), "against": {}}
    lines = class_text({**content, "plus_minus": {"per_class": widths}}).split("\n")
    assert [line.split() for line in lines[1:3]] == [
        ["dog", "0.2500", "+-", "0.0100", "7"],
        ["cat", "0.5000", "+-", "0.0100", "7"],
    ]
    assert lines[3:] == [f"no box of 10 of 12 classes: {', '.join(f'none {n}' for n in range(8))} and 2 more"]
