"""Damaged files end in results or UserErrors; ``benchmarks/fuzz.py`` runs the same targets far longer."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from fuzz import LAYERS, TARGETS, prepare, try_one
from fuzz_changes import change_tree
from fuzz_networks import small_graph
from hypothesis import given, settings
from hypothesis import strategies as st

from quantization.errors import UserError
from quantization.onnx_graph.load import load_onnx
from quantization.preflight.report import preflight

SLOW = ("checkpoint", "ONNX", "data.yaml")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("fuzz")
    prepare(place)
    return place


@pytest.mark.parametrize("name", sorted(TARGETS))
def test_damaged_files_give_results_or_user_errors(folder: Path, name: str) -> None:
    kinds: set[bool] = set()

    @settings(max_examples=200 if name in SLOW else 500, deadline=None, derandomize=True, database=None)
    @given(st.randoms(use_true_random=True))
    def check(rng: random.Random) -> None:
        found = try_one(TARGETS[name], rng, folder)
        if found is not None and not isinstance(found, UserError):
            raise found
        kinds.add(found is None)

    check()
    assert name in ("labels", "checkpoint") or kinds == {False, True}  # labels are reported, not raised


@pytest.mark.parametrize("name", ["labels", "image list", "data.yaml", "--config", "COCO JSON", "layers", "profile"])
def test_any_bytes(folder: Path, name: str) -> None:
    target = TARGETS[name]

    @settings(max_examples=100, deadline=None, derandomize=True, database=None)
    @given(st.one_of(st.binary(max_size=60), st.text(max_size=60).map(str.encode)))
    def check(data: bytes) -> None:
        found = try_one(target._replace(make=lambda rng: data), 0, folder)
        assert found is None or isinstance(found, UserError), data

    check()


def test_what_escapes_is_seen(folder: Path) -> None:
    def read(file: Path) -> None:
        raise KeyError(file.name)

    assert isinstance(try_one(TARGETS["layers"]._replace(read=read), 0, folder), KeyError)


def test_an_example_follows_from_its_seed() -> None:
    first, second = (change_tree(random.Random(5), LAYERS) for _ in range(2))
    assert first == second
    assert any(change_tree(random.Random(seed), LAYERS) != LAYERS for seed in range(5))


def test_a_constant_where_an_image_is_expected_is_float(tmp_path: Path) -> None:
    """Found by fuzzing."""
    model = small_graph()
    (reshape,) = [node for node in model.graph.node if node.op_type == "Reshape"]
    reshape.input[0] = "scale"
    (tmp_path / "a.onnx").write_bytes(model.SerializeToString())
    preflight(load_onnx(str(tmp_path / "a.onnx")))


def test_names_that_are_no_text(tmp_path: Path) -> None:
    """Found by fuzzing."""
    data = small_graph().SerializeToString().replace(b"/model/model.0/Conv", b"/model/model.0/\xff\xff\xff\xff")
    (tmp_path / "a.onnx").write_bytes(data)
    with pytest.raises(UserError, match=r"no UTF-8 text|is no ONNX"):
        load_onnx(str(tmp_path / "a.onnx"))
