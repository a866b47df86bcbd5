"""The benchmark on photographs: public sets laid out, its commands, and the table that it writes of figures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import real
from accuracy_jobs import StepFailed
from real_report import write_report
from real_sets import lay_out, voc_rows

from quantization.cli.parser import parse
from quantization.data.data_yaml import read_data_yaml
from quantization.errors import UserError

VOC = """<annotation><size><width>200</width><height>100</height></size>
<object><name>WBC</name><bndbox><xmin>20</xmin><ymin>10</ymin><xmax>60</xmax><ymax>50</ymax></bndbox></object>
<object><name>WBC</name><bndbox><xmin>20</xmin><ymin>10</ymin><xmax>60</xmax><ymax>50</ymax></bndbox></object>
<object><name>RBC</name><bndbox><xmin>150</xmin><ymin>50</ymin><xmax>230</xmax><ymax>100</ymax></bndbox></object>
<object><name>RBC</name><bndbox><xmin>7</xmin><ymin>5</ymin><xmax>7</xmax><ymax>9</ymax></bndbox></object></annotation>"""


def image(file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(file), np.zeros((100, 200, 3), np.uint8))


def label(file: Path, text: str = "0 0.5 0.5 0.2 0.2\n") -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


def test_boxes_of_voc(tmp_path: Path) -> None:
    (tmp_path / "a.xml").write_text(VOC)
    assert voc_rows(tmp_path / "a.xml", ["RBC", "WBC"]) == [
        "1 0.200000 0.300000 0.200000 0.400000",  # twice in the file
        "0 0.875000 0.750000 0.250000 0.500000",  # to the border; the empty one is left out
    ]
    with pytest.raises(UserError, match="has the class RBC: WBC are known"):
        voc_rows(tmp_path / "a.xml", ["WBC"])


def sources(folder: Path) -> dict[str, Path]:
    """The public sets as they are cloned, with an image in each split."""
    coco, cells, pests, thermal = (folder / name for name in ("coco", "cells", "pests", "thermal"))
    for split in ("train2017", "val2017"):
        image(coco / "images" / split / "1.jpg")
        label(coco / "object_detection" / "labels" / split / "1.txt")
    (coco / "object_detection" / "config.yaml").write_text("path: .\nnames:\n  0: person\n  1: bicycle\n")
    for split, theirs in (("train", "train"), ("val", "valid")):
        image(pests / "datasets" / "Corn-Pest-v4-4" / theirs / "images" / "1.jpg")
        label(pests / "datasets" / "Corn-Pest-v4-4" / theirs / "labels" / "1.txt")
        label(cells / "BCCD" / "ImageSets" / "Main" / f"{split}.txt", f"{split}1\n")
        image(cells / "BCCD" / "JPEGImages" / f"{split}1.jpg")
        label(cells / "BCCD" / "Annotations" / f"{split}1.xml", VOC)
    (pests / "datasets" / "Corn-Pest-v4-4" / "data.yaml").write_text("names: [larvae]\ntrain: /content/x\nnc: 1\n")
    label(pests / "yolov5" / "runs" / "train" / "exp" / "weights" / "best.pt", "")
    for split in ("train", "test"):
        image(thermal / "Dataset" / split / "images" / "1.jpg")
        label(thermal / "Dataset" / split / "labels" / "1.txt")
    return {"coco128": coco, "blood-cells": cells, "corn-pests": pests, "thermal": thermal}


def test_public_sets_are_laid_out(tmp_path: Path) -> None:
    names = {"coco128": ["person", "bicycle"], "blood-cells": ["RBC", "WBC", "Platelets"], "corn-pests": ["larvae"]}
    for name, source in sources(tmp_path / "from").items():
        before = sorted(source.rglob("*"))
        data = lay_out(name, source, tmp_path / name)
        content = read_data_yaml(data.data)
        assert list(content.names) == names.get(name, ["person"])
        for split in ("train", "val"):
            (picture,) = (data.data.parent / "images" / split).iterdir()
            (text,) = (data.data.parent / "labels" / split).iterdir()
            assert picture.stem == text.stem and text.read_text() and not picture.is_symlink()
        assert (data.weight is not None) == (name == "corn-pests")
        assert lay_out(name, source, tmp_path / name) == data and sorted(source.rglob("*")) == before
    with pytest.raises(UserError, match=r"coco128: .*config\.yaml is missing"):
        lay_out("coco128", tmp_path / "from" / "thermal", tmp_path / "new")
    with pytest.raises(UserError, match=r"mine: .*data\.yaml is missing"):
        lay_out("mine", tmp_path, tmp_path / "new")


def test_every_measurement_names_its_reference(tmp_path: Path) -> None:
    words_of_all = ["--work", str(tmp_path), "--sets", "a=b", "--onnxruntime", "--square"]
    options = real.build_parser().parse_args(words_of_all)
    plan = real.Plan(
        options, lay_out("coco128", sources(tmp_path / "from")["coco128"], tmp_path / "a"), tmp_path / "w.pt"
    )
    for job in (plan.float_job(), plan.way_job("ptq-mse", 0), plan.way_job("qat-published", 2)):
        words = {step.name: " ".join(step.words) for step in job.steps}
        for runtime in ("torch", "square", "onnxruntime"):
            assert (" --square " in words[runtime]) == (runtime == "square")
            output = next(step.output for step in job.steps if step.name == runtime)
            assert output == job.folder / f"{runtime}.json"
            assert f" --save-samples {output.with_suffix('.npz')}" in words[runtime]
            reference = f" --against {tmp_path}/results/coco128/float/{runtime}.npz" in words[runtime]
            assert reference == (job.name != "coco128/float")
        made = [step for step in job.steps if step.name == "quantize"]
        assert all(f"test {step.output} " in words["torch"] for step in made)
        assert len(made) == (job.name != "coco128/float")
    assert "--calib-method mse --no-equalize" in words["quantize"] and " --seed 2 " in words["quantize"]
    assert job.folder == tmp_path / "results" / "coco128" / "qat-published" / "2"


class Order:
    """Stands in for the workshop: it notes which steps of which network are wanted, and what they wait for."""

    def __init__(self, work: Path, jobs: int, threads: int) -> None:
        self.ran: list[str] = []

    def __enter__(self) -> Order:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def run_job(self, job: real.Job, wanted: set[str]) -> None:
        steps = [step.name for step in job.steps if step.name in wanted]
        assert len(steps) == len(wanted)
        self.ran.append(f"{job.name}: {' '.join(steps)}")

    def side_by_side(self, work: dict[str, Any], after: dict[str, str]) -> list[str]:
        for name, call in work.items():
            call()
            if name in after:
                self.ran[-1] += f", after {after[name]}"
        return self.ran


def test_only_ways_on_squares_wait_for_the_float_models_squares(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(real, "Workshop", Order)
    for name in ("make_checkout", "install_bundle"):
        monkeypatch.setattr(real, name, lambda *names: None)
    words = ["--work", str(tmp_path), "--sets", "a=b", "--ways", "qat-scales", "ptq-mse", "--seeds", "0", "1"]
    options = real.build_parser().parse_args([*words, "--square", "ptq-mse", "--onnxruntime", "ptq-mse"])
    data = real.RealSet("a", tmp_path / "data.yaml", tmp_path / "w.pt")
    squares = "square export onnxruntime"
    assert real.measure(options, [data], {}) == [
        "a/float: torch",
        "a/qat-scales/0: quantize torch, after a/float",
        "a/qat-scales/1: quantize torch, after a/float",
        f"a/float: torch {squares}, after a/float",
        f"a/ptq-mse/0: quantize torch {squares}, after a/float, squares",
        f"a/ptq-mse/1: quantize torch {squares}, after a/float, squares",
    ]


def test_every_way_is_a_command_line_of_quantize() -> None:
    for words in real.WAYS.values():
        files = ["--ptq", "p.pt", "--qat", "q.pt", "--data", "d.yaml"]
        name, _ = parse("yolov5", ["quantize", "w.pt", *files, *words.split()])
        assert name == "quantize"


class Trainer:
    """Stands in for the workshop: its training writes a weight, or not, and ends with a message, or well."""

    def __init__(self, weight: Path | None, message: str | None) -> None:
        self.weight, self.message = weight, message
        self.calls: list[list[str]] = []

    def command(self, words: list[str], cwd: Path, log: Path) -> None:
        self.calls.append(words)
        if self.weight is not None:
            label(self.weight, "")
        if self.message is not None:
            raise StepFailed(self.message)


def test_training_that_is_ended_leaves_its_best_epoch(tmp_path: Path) -> None:
    words = ["--work", str(tmp_path), "--sets", "a=b", "--start", "s.pt", "--device", "cuda:0", "--train-seconds", "9"]
    options = real.build_parser().parse_args([*words, "--train-options=--cache ram"])
    data = real.RealSet("a", tmp_path / "data.yaml", None)
    weight = tmp_path / "train" / "a" / "weights" / "best.pt"
    for made, message in ((None, "exit code 124: epoch 0"), (weight, "exit code 1: no memory")):
        with pytest.raises(StepFailed, match=message):
            real.train(options, data, Trainer(made, message))  # type: ignore[arg-type]
    trainer = Trainer(weight, "exit code 124: epoch 7")
    for _ in range(2):  # the second finds it done
        real.train(options, data, trainer)  # type: ignore[arg-type]
    assert real.trained(options, data) == weight and len(trainer.calls) == 1
    command = trainer.calls[0]
    assert command[:2] == ["timeout", "9"] and command[-2:] == ["--cache", "ram"]
    assert "--device" not in command  # upstream would overwrite CUDA_VISIBLE_DEVICES


def figures(value: float, apart: float | None = None) -> dict[str, Any]:
    one = {"points": apart, "plus_minus": 0.3}
    return {
        **{"map": value, "map50": value, "merged": value, "per_class": {"ant": value, "bee": -1.0, "cat": value}},
        **{"boxes": {"ant": 50, "bee": 0, "cat": 1}, "conditions": "9 images, squares of 320"},
        "plus_minus": {"map": 0.02, "map50": 0.02, "merged": 0.01, "per_class": {}},
        "against": {}
        if apart is None
        else {"f.pt": {"map": one, "merged": one, "per_class": {"ant": one, "cat": one}}},
    }


def test_the_table(tmp_path: Path) -> None:
    places: dict[str, dict[str, Any]] = {
        "a/float": figures(0.5),
        "a/ptq-mse/0": figures(0.49, -1.0),
        "a/qat-default/0": figures(0.498, -0.1),
        "a/qat-default/1": figures(0.498, -0.3),
        "a/qat-default/10": figures(0.498, -0.5),
        "b/float": figures(0.4),
        "b/ptq-mse/0": figures(0.4, 0.04),
        "b/qat-default/1": figures(0.4, 0.2),
        "c/ptq-mse/0": figures(0.4, 0.04),  # its float model failed
    }
    for place, content in places.items():
        folder = tmp_path / "work" / "results" / place
        folder.mkdir(parents=True)
        (folder / "torch.json").write_text(json.dumps(content))
        (folder / "steps.json").write_text(
            json.dumps({"torch": {"command": ["/b/python3", "x.py", "/a/w.pt", "WORK/b"]}})
        )
    (tmp_path / "work" / "results" / "a" / "qat-published" / "0").mkdir(parents=True)  # is running
    for seed, merged in (("1", 0.48), ("10", 0.52)):  # seed 0 has no summary
        summary = tmp_path / "work" / "models" / "a" / "qat-default" / f"{seed}-summary.json"
        summary.parent.mkdir(parents=True, exist_ok=True)
        epochs = [{"epoch": number, "map": 0.51, "map50": 0.6, "merged": merged + 1 - number} for number in (0, 1)]
        summary.write_text(json.dumps({"figures": {"ptq": {}, "qat": {"epochs": epochs}}}))
    facts = {"cpu": "Z80", "cores": 1, "gpu": "none", "versions": {"python": "3"}}
    (tmp_path / "work" / "machine.json").write_text(json.dumps(facts))
    write_report(tmp_path / "work", ["a", "b", "c"], tmp_path, "real")
    text = (tmp_path / "real.md").read_text()
    assert "Z80, 1 cores, GPU: none; python 3." in text
    assert "| float | | 50.00 +- 1.00 | 40.00 +- 1.00 | |" in text
    # seeds: sqrt(0.3^2 + 1.96^2 * 0.2^2 / 3) = 0.376; sets: sqrt(0.376^2 + 0.3^2) / 2 = 0.24
    assert "| ptq-mse | 1 | -1.00 +- 0.30 | +0.04 +- 0.30 | -0.48 +- 0.21 |" in text
    assert "| qat-default | 1 to 3 | -0.30 +- 0.38 | +0.20 +- 0.30 | -0.05 +- 0.24 |" in text
    assert "qat-published" not in text
    assert "- QAT, classes merged: 4 of 6 (67 %)" in text and "- PTQ" not in text  # -0.1 and -0.5 are 0.4 apart
    assert "| ant | 50 | 50.00 | -1.00 +- 0.30 | -0.30 +- 0.38 |\n| cat | 1 | 50.00 | -1.00 | -0.30 |" in text
    assert "bee" not in text
    # of the last epochs 0.48 and 0.52, and 0.51 twice, 0.5 in float
    assert "| qat-default, classes merged | +0.00 |  |\n| qat-default, mean over classes | +1.00 |  |" in text
    assert "- a: 9 images, squares of 320." in text and "- b, ptq-mse, seed 0, torch: `python x.py w.pt WORK/b`" in text
    content = json.loads((tmp_path / "real.json").read_text())
    assert list(content["sets"]) == ["a", "b"] and list(content["sets"]["a"]["ways"]["qat-default"]) == ["0", "1", "10"]


def test_bad_options_are_refused(tmp_path: Path) -> None:
    common = ["--work", str(tmp_path), "--stages", "report", "--out", str(tmp_path)]
    with pytest.raises(UserError, match="--sets a: give NAME=PATH"):
        real.main([*common, "--sets", "a"])
    with pytest.raises(UserError, match=r"--weights b=.*there is no such set"):
        real.main([*common, "--sets", f"a={tmp_path}", "--weights", f"b={tmp_path}"])
    for wrong in ("a", "a:b:c", "a:"):
        with pytest.raises(UserError, match=f"--pairs {wrong}: give WAY:WAY"):
            real.main([*common, "--sets", f"a={tmp_path}", "--pairs", wrong])
    source = sources(tmp_path / "from")["thermal"]
    with pytest.raises(UserError, match="thermal has no weight: give --start"):
        real.main([*common[:2], "--sets", f"thermal={source}"])
