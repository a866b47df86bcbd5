"""The configuration, and the parser compiled against a stand-in of DeepStream's header and called on random outputs."""

from __future__ import annotations

import configparser
import ctypes
import shutil
import subprocess
from pathlib import Path
from typing import Callable, Sequence

import numpy as np
import pytest

from quantization.handover.deepstream import PARSER, write_deepstream
from quantization.handover.facts import SUPPRESSED, network_facts
from support.handover_net import net
from support.house import PACKAGE, ROOT
from support.workflow import SUPPORT

Parse = Callable[..., "np.ndarray | None"]
KINDS = {"float32": 0, "int32": 3}
SIZE = (192, 320)  # height and width of the networks


@pytest.fixture(scope="module")
def parse(tmp_path_factory: pytest.TempPathFactory) -> Parse:
    compiler = shutil.which("g++") or shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    library = tmp_path_factory.mktemp("parser") / "libparser.so"
    folders = [f"-I{SUPPORT / 'deepstream'}", f"-I{ROOT / PACKAGE / 'handover'}"]
    flags = ["-shared", "-fPIC", "-Wall", "-Wextra", "-Wno-unused-variable", "-Werror"]
    source = str(SUPPORT / "deepstream" / "call_parser.cpp")
    subprocess.run([compiler, *flags, *folders, "-o", str(library), source], check=True)
    function = ctypes.CDLL(str(library)).call

    def run(parser: str, tensors: dict[str, np.ndarray], classes: int, threshold: float) -> np.ndarray | None:
        """Rows of x1, y1, x2, y2, score, class; None: refused."""
        arrays = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
        count = len(arrays)
        sides = [side for array in arrays.values() for side in (*array.shape, 0)[:2]]
        result = np.zeros((5000, 6), np.float32)
        found = function(
            parser.encode(),
            count,
            (ctypes.c_char_p * count)(*(name.encode() for name in arrays)),
            (ctypes.c_int * count)(*(KINDS[str(array.dtype)] for array in arrays.values())),
            (ctypes.c_int * len(sides))(*sides),
            (ctypes.c_void_p * count)(*(array.ctypes.data for array in arrays.values())),
            classes,
            ctypes.c_float(threshold),
            result.ctypes.data_as(ctypes.c_void_p),
        )
        return None if found < 0 else result[:found]

    return run


def clipped(corners: np.ndarray) -> np.ndarray:
    return corners.clip(0, np.array([SIZE[1], SIZE[0]] * 2))


def random_rows(classes: int) -> np.ndarray:
    rows = np.random.default_rng(classes).random((200, 5 + classes), dtype=np.float32)
    rows[:, :4] *= np.array([SIZE[1], SIZE[0], 100, 100], np.float32)
    return rows


def expected_rows(rows: np.ndarray, scores: np.ndarray, threshold: float) -> np.ndarray:
    box, label = np.nonzero(scores >= threshold)
    corners = np.hstack((rows[box, :2] - rows[box, 2:4] / 2, rows[box, :2] + rows[box, 2:4] / 2))
    return np.column_stack((clipped(corners), scores[box, label], label))


def test_rows(parse: Parse) -> None:
    rows = random_rows(3)
    expected = expected_rows(rows, rows[:, 4:5] * rows[:, 5:], 0.3)
    assert 50 < len(expected) < 500
    np.testing.assert_allclose(parse("NvDsInferParseRows", {"outputs": rows}, 3, 0.3), expected, atol=1e-4)
    assert parse("NvDsInferParseRows", {"outputs": rows}, 4, 0.3) is None  # another number of classes
    assert parse("NvDsInferParseRows", {"output0": rows}, 3, 0.3) is None


def test_objectness_of_one_class(parse: Parse) -> None:
    rows = random_rows(1)
    expected = expected_rows(rows, rows[:, 4:5], 0.3)
    np.testing.assert_allclose(parse("NvDsInferParseObjectness", {"outputs": rows}, 1, 0.3), expected, atol=1e-4)


def test_detections(parse: Parse) -> None:
    generator = np.random.default_rng(0)
    boxes = np.sort(generator.uniform(-20, 340, (100, 2, 2)), axis=1).reshape(100, 4).astype(np.float32)
    scores, labels = generator.random(100, dtype=np.float32), generator.integers(0, 3, 100).astype(np.int32)
    tensors = dict(zip(SUPPRESSED, (np.array([60], np.int32), boxes, scores, labels)))
    corners = clipped(boxes)
    there = (scores >= 0.3) & (np.arange(100) < 60) & (corners[:, 2:] > corners[:, :2]).all(1)
    expected = np.column_stack((corners, scores, labels))[there]
    np.testing.assert_allclose(parse("NvDsInferParseDetections", tensors, 3, 0.3), expected, atol=1e-4)
    assert parse("NvDsInferParseDetections", tensors, 2, 0.3) is None  # a class that there is not


@pytest.mark.parametrize(
    ("names", "suppressed", "objectness", "parser", "cluster"),
    [
        (["ant", "bee", "cat"], False, True, "NvDsInferParseRows", "2"),
        (["ant"], False, True, "NvDsInferParseObjectness", "2"),
        (["ant", "bee", "cat"], True, False, "NvDsInferParseDetections", "4"),
    ],
)
def test_configuration(
    tmp_path: Path, names: Sequence[str], suppressed: bool, objectness: bool, parser: str, cluster: str
) -> None:
    graph = net(4, suppressed)
    write_deepstream(tmp_path, graph, network_facts(graph, names, objectness), 1)
    config = configparser.ConfigParser()
    config.read(tmp_path / "config_infer.txt", encoding="utf-8")
    found = config["property"]
    assert float(found["net-scale-factor"]) == 1 / 255 and found["model-color-format"] == "0"
    assert found["infer-dims"] == "3;192;320" and found["batch-size"] == "4"
    assert found["num-detected-classes"] == str(len(names))
    assert (tmp_path / found["labelfile-path"]).read_text(encoding="utf-8").split() == list(names)
    assert found["output-blob-names"] == (";".join(SUPPRESSED) if suppressed else "outputs")
    assert (found["parse-bbox-func-name"], found["cluster-mode"]) == (parser, cluster)
    assert f'extern "C" bool {parser}(' in (tmp_path / PARSER).read_text(encoding="utf-8")
    assert ("nms-iou-threshold" in config["class-attrs-all"]) is not suppressed
