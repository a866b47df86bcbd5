"""predict.py on ONNX files whose errors are known: a detector that never errs, and ones that lack or shift boxes."""

from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from quantization.cli.predict import main
from quantization.errors import UserError
from support.drawn_data import NAMES, SIDE, Drawn
from support.house import ROOT
from support.perfect_detector import SLOTS, perfect_detector
from support.workflow import SUPPORT, run_python


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Drawn:
    data = Drawn(tmp_path_factory.mktemp("predict") / "data")
    data.json = None
    data.finish()
    return data


@pytest.fixture(scope="module")
def perfect(drawn: Drawn) -> Path:
    return perfect_detector(drawn.root.parent / "perfect.onnx", (SIDE, SIDE), len(NAMES))


@pytest.fixture(scope="module")
def blind(drawn: Drawn, perfect: Path) -> Path:
    """Does not see class 0."""
    model = onnx.load(str(perfect))
    (scores,) = (entry for entry in model.graph.initializer if entry.name == "scores")
    values = numpy_helper.to_array(scores).copy()
    values[:, :SLOTS] = 0
    scores.CopyFrom(numpy_helper.from_array(values, "scores"))
    file = drawn.root.parent / "blind.onnx"
    onnx.save(model, str(file))
    return file


def predict(tmp_path: Path, *words: object) -> tuple[dict[str, Any], str]:
    """Its record and its page."""
    out = tmp_path / "out"
    assert main([*map(str, words), "--out", str(out)]) == 0
    return json.loads((out / "predictions.json").read_text()), (out / "index.html").read_text(encoding="utf-8")


class Page(HTMLParser):
    """What the tests ask of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.cards: list[dict[str, str | None]] = []
        self.sources: list[str] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag == "article":
            self.cards.append(found)
        self.sources += [str(found[key]) for key in ("src",) if key in found]
        self.links += [str(found[key]) for key in ("href",) if key in found]


def test_boxes_are_those_that_were_drawn(tmp_path: Path, drawn: Drawn, perfect: Path) -> None:
    record, _ = predict(tmp_path, perfect, drawn.val)
    assert len(record["images"]) == len(drawn.things)
    for entry in record["images"]:
        things = drawn.things[Path(entry["image"]).name]
        expected = sorted([t.x, t.y, t.x + t.w, t.y + t.h, 1, t.label] for t in things)
        np.testing.assert_allclose(sorted(entry["boxes"][0]), expected, atol=0.01)


def test_a_blind_model_loses_a_class_and_misses_its_labels(
    tmp_path: Path, drawn: Drawn, perfect: Path, blind: Path
) -> None:
    record, text = predict(tmp_path, perfect, "--compare", blind, "--data", drawn.root / "data.yaml")
    ants = {name: sum(thing.label == 0 for thing in things) for name, things in drawn.things.items()}
    assert sum(ants.values()) > 2
    for entry in record["images"]:
        number = ants[Path(entry["image"]).name]
        assert entry["changes"].get("lost", 0) == number and "new" not in entry["changes"]
        assert entry["missed"] == [0, number] and entry["false"] == [0, 0]
        assert entry["disagreement"] == pytest.approx(number, abs=0.01)
    order = [ants[Path(entry["image"]).name] for entry in record["images"]]
    assert order == sorted(order, reverse=True)
    assert f"{sum(ants.values())} lost (0 by falling below the threshold), 0 new" in text


def decoded(source: str) -> np.ndarray:
    """The picture of a data URI."""
    data = np.frombuffer(base64.b64decode(source.split(",", 1)[1]), np.uint8)
    image = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert image is not None
    return image


def test_the_page_needs_nothing_else(tmp_path: Path, drawn: Drawn, perfect: Path, blind: Path) -> None:
    _, text = predict(tmp_path, blind, drawn.val, "--compare", perfect, "--worst", 3)
    page = Page(text)
    assert [card["data-rank"] for card in page.cards] == ["0", "1", "2"]
    assert len(page.sources) == 6 and all(source.startswith("data:image/jpeg;base64,") for source in page.sources)
    assert not re.search(r"https?://|@import|url\(", text)
    assert len(page.links) == len(drawn.things)  # the others are linked
    for link in page.links:
        picture = cv2.imread(str(tmp_path / "out" / link))
        assert picture is not None and picture.shape[1] > 2 * 900  # side by side
    for number, link in enumerate(page.links[:3]):  # each card shows its own image
        left = decoded(page.sources[2 * number])
        picture = cv2.imread(str(tmp_path / "out" / link))
        assert np.abs(left.astype(int) - picture[-left.shape[0] :, : left.shape[1]]).mean() < 3
    assert "prefers-color-scheme: dark" in text


def test_names_come_from_the_data_yaml_and_are_escaped(
    tmp_path: Path, drawn: Drawn, perfect: Path, blind: Path
) -> None:
    names = tmp_path / "names.yaml"
    names.write_text("train: .\nval: .\nnames: ['<ant>', 虫, cat]\n", encoding="utf-8")
    record, text = predict(tmp_path, perfect, drawn.val, "--data", names, "--compare", blind)
    assert record["names"] == ["<ant>", "虫", "cat"]
    assert "&lt;ant&gt;" in text and "<ant>" not in text


def refused(words: list[object]) -> str:
    with pytest.raises(UserError) as raised:
        main(list(map(str, words)))
    assert "\n" not in str(raised.value)
    return str(raised.value)


def test_refusals_come_before_work(tmp_path: Path, drawn: Drawn, perfect: Path) -> None:
    out = tmp_path / "out"
    other = perfect_detector(tmp_path / "other.onnx", (SIDE, SIDE), 2)
    names = tmp_path / "names.yaml"
    names.write_text("train: .\nval: .\nnames: [one, two]\n")
    images = drawn.val
    assert "no images" in refused([perfect, "--out", out])
    assert "does not exist" in refused([tmp_path / "gone.onnx", images, "--out", out])
    assert "has 3 classes" in refused([perfect, images, "--compare", other, "--out", out])
    assert "has 2 classes" in refused([perfect, images, "--data", names, "--out", out])
    assert "--conf 7.0 is out of range" in refused([perfect, images, "--conf", 7, "--out", out])
    assert "either --data or --cocodir" in refused([perfect, "--data", names, "--cocodir", images])
    (tmp_path / "net.pt").write_bytes(b"")
    assert "no yolov5 or yolov7 checkout" in refused([tmp_path / "net.pt", images, "--out", out])
    assert not out.exists()
    assert "exists already" in refused([perfect, images, "--out", drawn.root])


def test_it_needs_no_torch() -> None:
    result = run_python(ROOT, SUPPORT / "without.py", "torch,torchvision", "modules", "quantization.cli.predict")
    assert json.loads(result.stdout) == {}
