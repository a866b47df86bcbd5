"""What a layer is called: against the paths that torch itself gives modules, for both exporters, and by hand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import onnx
import pytest
import torch
from onnx import helper
from torch import Tensor, nn

from quantization.errors import UserError
from quantization.onnx_graph.module_path import SCOPES, module_path, path_matcher, path_of_name
from support.exported import exported

ROOT = Path(__file__).resolve().parents[2]


class Block(nn.Module):
    """Upstream's Conv: a convolution and an activation; the convolution's path is the block's, and ``.conv``."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1, bias=False)
        self.act = nn.LeakyReLU(0.1)

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.conv(x))


class Sum(nn.Module):
    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b


class Shortcuts(nn.Module):
    """Containers in containers, one of them called as a whole, as C3 does."""

    def __init__(self) -> None:
        super().__init__()
        self.cv1 = Block()
        self.m = nn.Sequential(Block(), nn.Sequential(Block(), nn.MaxPool2d(3, 1, 1)))
        self.addop = Sum()

    def forward(self, x: Tensor) -> Tensor:
        return self.addop(x, torch.cat((self.m(self.cv1(x)), x), 2)[:, :, : x.shape[2]])


class Yolo(nn.Module):
    """Upstream's network: its layers are called one by one."""

    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(Block(), Shortcuts(), nn.Upsample(scale_factor=2), Block())

    def forward(self, x: Tensor) -> Tensor:
        for module in self.model:
            x = module(x)
        return x


class Outputs(nn.Module):
    """The export's wrapper."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x) + 1


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
@pytest.mark.parametrize("without_weight_names", [False, True])
def test_paths_are_those_of_torch(exporter: str, without_weight_names: bool) -> None:
    net = Yolo()
    paths = {path: type(module) for path, module in net.named_modules()}
    found: dict[str, list[str]] = {}
    for node in exported(Outputs(net), exporter).graph.node:
        if without_weight_names:  # as the FP16 remainder leaves them
            node.input[:] = [name.replace(".weight", "_half") for name in node.input]
        found.setdefault(node.op_type, []).append(module_path(node))
    assert found["Conv"] == [path for path, kind in paths.items() if kind is nn.Conv2d]
    # an activation goes by its block's name
    assert found["LeakyRelu"] == [path for path, kind in paths.items() if kind is Block]
    assert found["MaxPool"] == [path for path, kind in paths.items() if kind is nn.MaxPool2d]
    assert found["Resize"] == [path for path, kind in paths.items() if kind is nn.Upsample]
    assert found["Concat"][-1:] == [path for path, kind in paths.items() if kind is Shortcuts]
    assert found["Add"][0] == "model.1.addop" and paths[found["Add"][0]] is Sum


@pytest.mark.parametrize(
    "node, path",
    [
        (helper.make_node("Mul", ["a", "b"], ["c"], name="/model/model.17/cv3/act/Mul"), "model.17.cv3"),
        (helper.make_node("Mul", ["a", "b"], ["c"], name="/model/model.2/m/m.0/cv1/act/Mul"), "model.2.m.0.cv1"),
        (helper.make_node("Relu", ["a"], ["c"], name="/model/model.2/act_1/Relu"), "model.2"),
        (helper.make_node("Add", ["a", "b"], ["c"], name="/model/model.2/m/m.0/addop/Add"), "model.2.m.0.addop"),
        (helper.make_node("Reshape", ["a", "b"], ["c"], name="/model/model.24/Reshape_1"), "model.24"),
        (helper.make_node("Conv", ["a", "model.model.24.m.0.weight"], ["c"], name="Conv_77"), "model.24.m.0"),
        (helper.make_node("Conv", ["a", "model.model.3.conv.weight"], ["c"]), "model.3.conv"),
        (helper.make_node("Conv", ["a", "model.3.conv.weight"], ["c"]), "model.3.conv"),  # upstream's own export
        (helper.make_node("PRelu", ["a", "model.model.3.act.weight"], ["c"]), "model.3"),
        (helper.make_node("Mul", ["a", "b"], ["c"], name="Mul_33"), "Mul_33"),
        (helper.make_node("Mul", ["a", "b"], ["c"], name="/Mul"), "/Mul"),
        (helper.make_node("Mul", ["a", "b"], ["c"]), "Mul"),
    ],
)
def test_module_path(node: onnx.NodeProto, path: str) -> None:
    assert module_path(node) == path


@pytest.mark.parametrize(
    "scopes, path",
    [
        ("['', 'model', 'model.model.0', 'act', 'silu']", "model.0"),
        ("['', 'model', 'model.model.24', 'view']", "model.24"),
        ("['', 'model', 'model.model.8', 'm', 'model.model.8.m.0', 'cv1', 'act', 'silu']", "model.8.m.0.cv1"),
        ("['', 'model', 'model.model.2', 'model.model.2.m.0', 'cv2', 'conv', 'conv2d_7']", "model.2.m.0.cv2.conv"),
        ("__import__('os').abort()", "n"),  # of a stranger: read, never run
        ("", "n"),
        ("[" * 100_000, "n"),
    ],
)
def test_module_path_of_dynamo_nodes(scopes: str, path: str) -> None:
    node = helper.make_node("Mul", ["a", "b"], ["c"], name="n")
    entry = node.metadata_props.add()
    entry.key, entry.value = SCOPES, scopes
    assert module_path(node) == path


def test_weight_behind_q_and_dq() -> None:
    node = helper.make_node("Conv", ["a", "DequantizeLinear_3"], ["c"], name="Conv_7")
    assert module_path(node, "model.model.3.conv.weight") == "model.3.conv"


def test_name_alone() -> None:
    assert path_of_name("/model.2/m/m.0/cv1/act/Sigmoid") == "model.2.m.0.cv1"
    assert path_of_name("Conv_12") == ""


def test_patterns_match_whole_paths_and_what_is_below() -> None:
    matches = path_matcher([r"model\.1", r"model\.[34]\.cv1|model\.5", r"(?i)MODEL\.6"], "--ignore")
    paths = [
        "model.1",
        "model.1.conv",
        "model.10",
        "model.3",
        "model.3.cv1.conv",
        "model.4.cv10",
        "model.5.m.0",
        "model.6",
    ]
    assert [path for path in paths if matches(path)] == [
        "model.1",
        "model.1.conv",
        "model.3.cv1.conv",
        "model.5.m.0",
        "model.6",
    ]
    assert not path_matcher([], "--ignore")("model.1")
    with pytest.raises(UserError, match=r"--ignore '\(' is no regular expression"):
        path_matcher(["model", "("], "--ignore")


def test_needs_no_onnx() -> None:
    code = "import sys; sys.modules['onnx'] = sys.modules['torch'] = None; import quantization.onnx_graph.module_path"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=ROOT)
