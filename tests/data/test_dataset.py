"""Data sets as --cocodir and --data name them; data.yaml with values of any type."""

from __future__ import annotations

import json
from dataclasses import FrozenInstanceError
from pathlib import Path
from typing import Any, Callable

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from quantization.data.data_yaml import read_data_yaml
from quantization.data.dataset import image_files, open_dataset
from quantization.errors import UserError
from support.workflow import run_python

TASKS = Path(__file__).resolve().parents[1] / "support" / "data_tasks.py"


def make_images(folder: Path, count: int = 2) -> list[str]:
    folder.mkdir(parents=True)
    for number in range(count):
        (folder / f"{number}.png").write_bytes(b"")
    return [str(folder / f"{number}.png") for number in range(count)]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data set in COCO's layout, with a data.yaml."""
    for part in ("train2017", "val2017"):
        make_images(tmp_path / "set" / "images" / part)
    write(tmp_path / "set", {})
    return tmp_path / "set"


def write(root: Path, more: dict[str, Any], without: tuple[str, ...] = ()) -> str:
    content = {"path": str(root), "train": "images/train2017", "val": "images/val2017", "names": ["ant", "bee"]}
    content = {key: value for key, value in {**content, **more}.items() if key not in without}
    (root / "data.yaml").write_text(yaml.safe_dump(content, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return str(root / "data.yaml")


def test_cocodir(root: Path) -> None:
    dataset = open_dataset(cocodir=str(root))
    assert dataset.val == [str(root / "images" / "val2017" / f"{number}.png") for number in range(2)]
    assert (dataset.annotations, dataset.names, dataset.class_count) == (None, [], None)
    (root / "annotations").mkdir()
    (root / "annotations" / "instances_val2017.json").write_text("{}")
    (root / "val2017.txt").write_text("./images/val2017/1.png\n")
    dataset = open_dataset(cocodir=str(root))
    assert [Path(file).name for file in dataset.val] == ["1.png"] and dataset.annotations is not None
    with pytest.raises(FrozenInstanceError):
        dataset.val = []  # type: ignore[misc] # that it cannot be set is what is tested
    assert dataset.with_val(dataset.train).val == dataset.with_train([]).with_val(dataset.train).val == dataset.train


def test_yaml(root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    expected = [str(root / "images" / "val2017" / f"{number}.png") for number in range(2)]
    for more in ({}, {"path": "set"}, {"path": "."}, {"path": ""}, {"path": None}, {"val": ["images/val2017"] * 2}):
        dataset = open_dataset(data=write(root, more))
        assert (dataset.val, dataset.names, dataset.class_count) == (expected, ["ant", "bee"], 2)
    assert image_files(root / "data.yaml") == expected == image_files(root / "images" / "val2017")
    for names in ({1: "bee", 0: "ant"}, ["ant", "bee"]):
        assert open_dataset(data=write(root, {"names": names, "nc": "2"})).names == ["ant", "bee"]
    dataset = open_dataset(data=write(root, {"nc": 3.0}, without=("names",)))
    assert (dataset.names, dataset.class_count) == ([], 3) and dataset.class_names(3)[2] == "class2"
    assert open_dataset(data=write(root, {}, without=("names",))).class_count is None


@pytest.mark.parametrize("upstream", ["yolov5", "yolov7"])
def test_yaml_as_upstream_finds_it(checkouts: Callable[[str], Path], tmp_path: Path, upstream: str) -> None:
    """Roboflow's export: ../valid/images, from the yaml's folder, which only yolov5 finds from elsewhere."""
    checkout = checkouts(upstream)
    root = tmp_path / "export"
    for part in ("train", "valid"):
        make_images(root / part / "images")
    more = {"train": "../train/images", "val": "../valid/images", "nc": 2}
    file = write(root, more, without=() if upstream == "yolov5" else ("path",))
    folder = checkout if upstream == "yolov5" else root / "valid"
    script = Path(TASKS).read_text().replace('sys.path[:0] = ["."]', f"sys.path[:0] = [{str(checkout)!r}]")
    (tmp_path / "task.py").write_text(script)
    theirs = json.loads(run_python(folder, tmp_path / "task.py", "read_yaml", upstream, file).stdout.splitlines()[-1])
    ours = open_dataset(data=file)
    assert {"val": str(Path(ours.val[0]).parent), "names": ours.names} == theirs


def test_an_entry_of_two_places_is_told(
    root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    expected = make_images(tmp_path / "images" / "val2017", 3)
    monkeypatch.chdir(tmp_path)
    assert open_dataset(data=write(root, {}, without=("path",))).val == expected
    assert "val: is read from images/val2017;" in caplog.text and f"{root}/images/val2017 exists too" in caplog.text


@pytest.mark.parametrize(
    "more, complaint",
    [
        ({"nc": None}, "nc: is an empty value"),
        ({"nc": "three"}, "nc: is 'three'"),
        ({"nc": 3}, "says nc: 3 but lists 2 names"),
        ({"nc": True}, "nc: is True"),
        ({"nc": [2]}, "nc: is a list"),
        ({"nc": 0}, "nc: is 0"),
        ({"nc": float("nan")}, "nc: is nan"),
        ({"nc": float("inf")}, "nc: is inf"),
        ({"names": 3}, "names: is 3"),
        ({"names": "person"}, "names: is 'person': write a list"),
        ({"names": None}, "names: is an empty value"),
        ({"names": []}, "names: is empty"),
        ({"names": ["a", None]}, "the name of class 1 is an empty value"),
        ({"names": ["a", ["b"]]}, "the name of class 1 is a list"),
        ({"names": {0: "a", "1": "b"}}, "keys of names: are 0, 1; number the classes 0 to 1"),
        ({"names": {1: "a", 2: "b"}}, "keys of names: are 1, 2"),
        ({"names": {False: "a", True: "b"}}, "keys of names: are False, True"),
        ({"train": None}, "train: is empty"),
        ({"val": []}, "val: is empty"),
        ({"val": 3}, "val: has 3"),
        ({"val": [None]}, "val: has an empty value"),
        ({"val": ["images/val2017", {"a": 1}]}, "val: has a mapping"),
        ({"val": "nowhere"}, "val: there is no .*/set/nowhere and no .*/nowhere: give path:"),
        ({"val": "/content/set/images/val2017"}, "does not exist; images/val2017 beside the yaml does: write that"),
        ({"val": "/content/set/pictures"}, "/content/set/pictures does not exist: write where"),
        (
            {"nc": 2, "names": ["\u866b\uff0c\u86fe"]},
            "lists 1 names: make them agree; it has \uff0c: YAML wants the ASCII marks",
        ),
        ({"path": 3}, "path: is 3"),
    ],
)
def test_bad_yaml(root: Path, more: dict[str, Any], complaint: str) -> None:
    file = write(root, more)
    with pytest.raises(UserError, match=complaint) as error:
        open_dataset(data=file)
    assert file in str(error.value) and "\n" not in str(error.value)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.dates(),
    lambda part: (
        st.lists(part, max_size=3) | st.dictionaries(st.integers(0, 3) | st.text(max_size=2), part, max_size=3)
    ),
    max_leaves=6,
)


@settings(
    max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    content=st.fixed_dictionaries(
        {"train": VALUES, "val": VALUES}, optional={"names": VALUES, "nc": VALUES, "path": VALUES}
    )
)
def test_values_of_any_type(tmp_path: Path, content: dict[str, Any]) -> None:
    file = tmp_path / "data.yaml"
    file.write_text(yaml.safe_dump(content))
    try:
        found = read_data_yaml(file)
    except UserError as error:
        assert str(error).startswith(f"--data {file}") and "\n" not in str(error)
    else:
        assert all(isinstance(entry, str) for entry in [*found.train, *found.val, *found.names, found.root])
        assert found.class_count is None or found.class_count == (len(found.names) or int(content["nc"]))


def test_refused(root: Path, tmp_path: Path) -> None:
    def refused(message: str, **arguments: str) -> None:
        with pytest.raises(UserError, match=message):
            open_dataset(**arguments)

    refused("either --cocodir")
    refused("either --cocodir", cocodir=str(root), data="x")
    refused("is not a folder", cocodir=str(tmp_path / "none"))
    refused("neither train2017.txt", cocodir=str(tmp_path))
    refused("does not exist", data=str(tmp_path / "none.yaml"))
    refused("is a folder", data=str(tmp_path))
    refused("lacks train: or val:", data=write(root, {}, without=("val",)))
    (root / "data.yaml").write_text("train\uff1aimages\nval\uff1aimages", encoding="utf-8")
    refused("lacks train: or val:.*; it has \uff1a: YAML", data=str(root / "data.yaml"))
    (root / "data.yaml").write_text("- a")
    refused("lacks train: or val:", data=str(root / "data.yaml"))
    (root / "empty.txt").write_text("")
    refused("lists no images", data=write(root, {"val": "empty.txt"}))
