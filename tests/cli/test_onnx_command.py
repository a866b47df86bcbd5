"""scripts/quantize-onnx.py: files, summary, exit codes, bad input; once in a process without torch."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from quantization.cli.onnx_command import OnnxCommand, closing, run_onnx_command
from quantization.errors import UserError
from quantization.onnx_quantize.options import OnnxImageOptions
from quantization.preflight.report import preflight
from support.float_nets import SIDE, detector, noise
from support.qdq_net import pyramid
from support.workflow import SUPPORT, load_script, run_python

SCRIPT = SUPPORT.parents[1] / "scripts" / "quantize-onnx.py"


@pytest.fixture
def net(tmp_path: Path) -> str:
    onnx.save(detector("N"), str(tmp_path / "net.onnx"))
    return str(tmp_path / "net.onnx")


@pytest.fixture
def array(tmp_path: Path) -> str:
    np.save(tmp_path / "images.npy", (noise(8) * 255).astype(np.uint8))
    return str(tmp_path / "images.npy")


def test_without_torch(net: str, array: str, tmp_path: Path) -> None:
    """As a user runs it on a machine that builds engines."""
    arguments = [net, "--images", array, "--batch-size", 3, "--summary", tmp_path / "s.json", "--fp16-remainder"]
    done = run_python(tmp_path, SUPPORT / "without.py", "torch,torchvision", "script", SCRIPT, *arguments)
    assert "Left float: model.0.conv: it reads the image" in done.stdout
    assert done.stderr == ""  # no bar, and ONNX Runtime does not tell of each FP16 constant that it cannot fold
    assert (
        "Preflight passed: 0 errors, 0 warnings" in done.stdout and "Q/DQ ONNX\n" in done.stdout.split("\nWrote\n")[1]
    )
    model = onnx.load(str(tmp_path / "net-int8.onnx"))
    assert not preflight(model).failed and model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "N"
    summary = json.loads((tmp_path / "s.json").read_text())
    assert len(summary["groups"]) == len(summary["amax"]) and summary["calib_method"] == "max"
    assert summary["float_layers"]["model.9.dfl.conv"].startswith("it takes the mean")
    assert min(summary["sqnr_db"].values()) > 18 and summary["preflight"]["requantize"] == 0


@pytest.mark.parametrize("data, lines", [("my data.yaml", 2), (None, 0)])
def test_the_next_step_is_the_accuracy(data: str | None, lines: int) -> None:
    """Each line is one that eval-engine.py reads, and the second compares with what the first has written."""
    images = OnnxImageOptions(data=data, images=None if data else "folder", imgsz=320 if data else None)
    options = OnnxCommand("net.onnx", images=images)
    following = closing(options, preflight(pyramid("torchscript", (0.1, 0.1)))).following
    first = ["net.onnx", "--data", data, "--imgsz", "320", "--save-samples", "net-int8.float.npz"]
    second = ["net-int8.onnx", "--data", data, "--imgsz", "320", "--against", "net-int8.float.npz"]
    found = [shlex.split(line)[2:] for line in following if "eval-engine.py" in line]
    assert found == [first, second][:lines]
    parser = load_script("eval-engine").build_parser()
    assert [parser.parse_args(words).engine for words in found] == ["net.onnx", "net-int8.onnx"][:lines]


@pytest.mark.parametrize("source", ["folder", "data.yaml"])
def test_image_files_give_what_their_array_gives(source: str, net: str, tmp_path: Path) -> None:
    folder = tmp_path / "images" / "train"
    folder.mkdir(parents=True)
    for number, image in enumerate((noise(4) * 255).astype(np.uint8)):
        Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{number}.png")
    (tmp_path / "data.yaml").write_text("train: images/train\nval: images/train\nnames: [a, b]\n")
    pixels = np.stack([np.asarray(Image.open(folder / f"{number}.png")).transpose(2, 0, 1) for number in range(4)])
    np.save(tmp_path / "same.npy", pixels)
    given = {"folder": ["--images", str(folder)], "data.yaml": ["--data", str(tmp_path / "data.yaml")]}[source]
    found = []
    for place in (given, ["--images", str(tmp_path / "same.npy")]):
        summary = str(tmp_path / "s.json")
        assert run_onnx_command([net, *place, "--imgsz", str(SIDE), "--summary", summary, "--save", f"{net}.q"]) == 0
        found.append(json.loads(Path(summary).read_text())["amax"])
    assert found[0] == pytest.approx(found[1], rel=1e-6)  # in another order, but all in one batch


@pytest.mark.parametrize(
    "arguments, message",
    [
        ([], "either --data data.yaml or --images"),
        (["--images", "x", "--data", "y"], "either --data data.yaml or --images"),
        (["--images", "missing.npy"], "does not exist"),
        (["--images", "missing"], "does not exist"),
        (["--images", "missing", "--save", "new/net.onnx", "--summary", "other/s.json"], "does not exist"),
        (["--images", "data.yaml"], "give it to --data"),
        (["--images", "small.npy"], r"\(8, 3, 4, 4\).*give \(N, 3, 16, 16\)"),
        (["--images", "damaged.npy"], "cannot be read"),
        (["--images", "images.npy", "--calib-method", "sqnr"], "use mse"),
        (["--images", "images.npy", "--ignore-policy", "nothing"], "matches no layer"),
        (["--images", "images.npy", "--ignore-policy", ".*"], "no layer is left"),
        (["--images", "images.npy", "--save", "net.onnx"], "would be overwritten"),
        (["--images", "images.npy", "--head", "none"], "--head"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    arguments: list[str], message: str, net: str, array: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    np.save("small.npy", np.zeros((8, 3, 4, 4), np.uint8))
    Path("damaged.npy").write_bytes(Path(array).read_bytes()[:100])
    Path("data.yaml").write_text("train: .\n")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UserError, match=message) as caught:
        run_onnx_command(["net.onnx", *arguments])
    assert "\n" not in str(caught.value) and sorted(tmp_path.iterdir()) == before


def test_nan_on_an_image_names_the_tensor(net: str, tmp_path: Path) -> None:
    images = noise(2)
    images[1] = np.nan
    np.save(tmp_path / "images.npy", images)
    with pytest.raises(UserError, match=r"tensor .* holds NaN"):
        run_onnx_command([net, "--images", str(tmp_path / "images.npy")])
