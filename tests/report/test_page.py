"""The report: well formed, loads nothing, shows strangers' text as text, and what is in the folder."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from quantization.errors import UserError
from quantization.preflight.report import preflight
from quantization.report.page import write_report
from support.qdq_net import pyramid

HOSTILE = "</script><script>alert('x')</script><img src=https://evil.example/x onerror=\"alert(1)\">&amp;"
VOID = {"meta", "img", "br", "line", "circle", "polyline"}


class Checked(HTMLParser):
    """Every element is closed in its order; keeps tags, references and text."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.links: list[str] = []
        self.handlers: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value or "" for name, value in attributes if name in ("src", "href", "srcset", "data", "action")]
        self.handlers += [name for name, _ in attributes if name.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("td", "th"):
            assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        self.text += data


def figures(name: str, value: float) -> dict[str, Any]:
    conditions = "7 images, squares of 64, NMS IoU 0.6, confidence 0.001"
    return {
        "map": value,
        "map50": value + 0.1,
        "images": 7,
        "conditions": conditions,
        "per_class": {name: value, "empty": -1.0},
    }


def write_run(folder: Path, name: str = "cat") -> dict[str, Any]:
    """A run folder with everything; ``name`` is a class, a layer, an engine's GPU, an option ..."""
    epochs = [{"epoch": number + 1, "map": 0.4 + 0.01 * number, "loss": 1.0} for number in range(5)]
    scale = {"amax": 2.0, "readers": [[name, "b"], ["c"]], "own": [1.0, 5.0], "ratio": 5.0}
    summary = {
        "run": "0123456789",
        "stage": "finished",
        "options": {"weight": name, "ptq": "ptq.pt", "qat": "qat.pt", "imgsz": 64, "ignore_policy": [name]},
        "versions": {"quant-tools": "0", name: name},
        "figures": {
            "float": figures(name, 0.5),
            "ptq": figures(name, 0.42),
            "qat": {**figures(name, 0.44), "epochs": epochs, "plus_minus": {"map": 0.0123}},
        },
        "shared_scales": [scale] * 20,
        "groups": [[name], [name, "b"], [name, "c"]],
    }
    rate = {"median": 800.0, "min": 790.0, "max": 810.0}
    engine = {"mode": "qat", "engine_bytes": 5e6, "qps": rate, "latency_ms": rate, "images_per_s": rate, "ratio": rate}
    half = {**engine, "name": "fp16", "images_per_s": {"median": 400.0}}
    bench = {"gpu": name, "versions": {"tensorrt": name}, "batch": 1, "reference": "fp16", "engines": [half]}
    bench["engines"].append({**engine, "name": "int8"})
    compared = {"text": name, "are_wrong": False, "are_judged": False}
    (folder / "engines").mkdir(parents=True)
    contents = {
        "summary.json": summary,
        "deploy.json": {"command": name, "options": {"out": name}, "target": [name]},
        "preflight.json": preflight(pyramid("torchscript")).to_dict(),
        "sensitive-summary.json": {"units": [{"modules": [name], "share": 1.0, "sqnr_db": 3.0}], "images": 2},
        "engines/bench.json": bench,
        "engines/map.json": {"map": 0.43, "map50": 0.6, "compared_boxes": compared},
    }
    for file, content in contents.items():
        (folder / file).write_text(json.dumps(content))
    (folder / "engines" / "int8.svg").write_text(f"<svg>{name}</svg>")
    return contents


def page_of(folder: Path) -> tuple[str, Checked]:
    text = Path(write_report(str(folder))).read_text(encoding="utf-8")
    page = Checked()
    page.feed(text)
    page.close()
    assert page.open == []
    return text, page


def test_everything_of_the_folder_is_in_the_page(tmp_path: Path) -> None:
    write_run(tmp_path / "run")
    _, page = page_of(tmp_path / "run")
    for words in (
        "Ship qat.pt: QAT, 6.00 points below float; 2.00 points above PTQ. Its engine runs 800 images/s, 2.00 times FP16.",
        "0.4400 +- 0.0123",
        "INT8 engine0.4300",
        "Measured on 7 images, squares of 64, NMS IoU 0.6, confidence 0.001.",
        "QAT, saved 44.00",
        "100.0 %, 3.0 dB",
        "2 scale groups, 20 of them of several tensors; 20 have ranges more than 4 times apart",
        "AP@0.5:0.95; differences in points. No box of 1 class.",
    ):
        assert words in page.text, words


def test_the_difference_of_classes_is_that_of_what_is_shipped(tmp_path: Path) -> None:
    summary = write_run(tmp_path / "run")["summary.json"]
    _, page = page_of(tmp_path / "run")
    assert "QAT against float" in page.text and "0.50000.42000.4400-6.00" in page.text
    summary["figures"]["qat"]["map"] = 0.41
    (tmp_path / "run" / "summary.json").write_text(json.dumps(summary))
    _, page = page_of(tmp_path / "run")
    assert "PTQ against float" in page.text and "0.50000.42000.4400-8.00" in page.text


@pytest.mark.parametrize("name", ["cat", HOSTILE])
def test_the_page_loads_nothing_and_runs_nothing(tmp_path: Path, name: str) -> None:
    write_run(tmp_path / "run", name)
    text, page = page_of(tmp_path / "run")
    assert "script" not in page.tags and page.handlers == []
    assert all(link.startswith("data:image/svg+xml;base64,") or ":" not in link for link in page.links)
    assert re.search(r"@import|url\(|http-equiv=.refresh", text) is None
    assert "default-src 'none'" in text
    assert page.text.count(name) >= 8  # shown as it is


def test_a_folder_with_a_summary_alone_is_enough(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text(json.dumps({"figures": {}, "options": {"ptq": "p.pt"}}))
    _, page = page_of(tmp_path)
    assert "Ship p.pt, unmeasured" in page.text


@pytest.mark.parametrize(
    "file, content, message",
    [
        ("summary.json", None, "is no run folder: it has no summary.json"),
        ("summary.json", {"units": []}, "is not the summary of quantize"),
        ("preflight.json", [1], "holds no JSON object"),
        ("preflight.json", {"passed": True}, "is not as the commands write it (KeyError: 'macs')"),
        ("sensitive-summary.json", {"units": 5}, "is not as the commands write it (TypeError"),
    ],
)
def test_damaged_folders_are_refused_in_one_line(tmp_path: Path, file: str, content: Any, message: str) -> None:
    write_run(tmp_path / "run")
    path = tmp_path / "run" / file
    path.unlink() if content is None else path.write_text(json.dumps(content))
    with pytest.raises(UserError) as caught:
        write_report(str(tmp_path / "run"))
    assert message in str(caught.value) and "\n" not in str(caught.value)
    assert not (tmp_path / "run" / "report.html").exists()
