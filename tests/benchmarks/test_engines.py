"""benchmarks/engines.py's report over the files that real engines left on an H100."""

from __future__ import annotations

import json
import re
import shutil
import statistics
from pathlib import Path

import engines
import pytest

from quantization.errors import UserError

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "engines"


@pytest.mark.skipif(shutil.which("dot") is None, reason="Graphviz dot is not installed")
def test_report_writes_ratios_drawings_and_comparisons_with_ptq(tmp_path: Path) -> None:
    net, out = tmp_path / "yolov5s", tmp_path / "imgs"
    net.mkdir()
    names = [
        "bench.json",
        "models.json",
        *(f"{engine}-{kind}.json" for engine in ("ptq", "no-rule") for kind in ("layer", "profile")),
    ]
    for name in names:
        shutil.copy(RESULTS / "yolov5s" / name, net)
    assert engines.main(["report", str(net), "--out", str(out)]) == 0

    assert sorted(path.name for path in out.iterdir()) == [
        "engines.md",
        "yolov5s-no-rule.svg",
        "yolov5s-ptq-no-rule.html",
        "yolov5s-ptq.svg",
    ]
    assert "<h1>no-rule compared with ptq</h1>" in (out / "yolov5s-ptq-no-rule.html").read_text(encoding="utf-8")
    rows = {
        row[0]: row[1:]
        for row in re.findall(
            r"^\| ([^|]+) \| (\d+) \| (\d+)-(\d+) \| ([\d.]+) \| ([\d.]+) \|$", (out / "engines.md").read_text(), re.M
        )
    }
    measured = {
        engine["name"]: [turn["qps"] for turn in engine["rounds"]]
        for engine in json.loads((net / "bench.json").read_text())["engines"]
    }
    assert set(rows) == {engines.TITLES[name] for name in measured}
    for name, qps in measured.items():
        images, least, most, ratio, against_fp16 = map(float, rows[engines.TITLES[name]])
        assert (images, least, most) == tuple(
            round(16 * value) for value in (statistics.median(qps), min(qps), max(qps))
        )
        turns = [mine / other for mine, other in zip(qps, measured["ptq"])]
        assert ratio == pytest.approx(statistics.median(turns), abs=6e-4)
        assert against_fp16 == pytest.approx(statistics.median(qps) / statistics.median(measured["fp16"]), abs=6e-4)


def test_a_folder_without_models_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"float\.onnx.*engine_models\.py"):
        engines.engines(tmp_path, None)
    with pytest.raises(UserError, match=r"models\.json.*engine_models\.py"):
        engines.main(["report", str(tmp_path), "--out", str(tmp_path / "imgs")])
    assert not list((tmp_path / "imgs").iterdir())
