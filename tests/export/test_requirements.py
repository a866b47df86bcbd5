"""What an export needs is refused on the model alone: outputs, packages, options that contradict each other."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from quantization.errors import UserError
from quantization.export import graph
from quantization.export.requirements import check_exportable, output_shapes
from quantization.options import ExportOptions
from quantization.upstream import model as upstream

CLASSES = 2


class Head(nn.Module):
    """As an upstream's in export mode: rows, and mask prototypes behind them if ``masks``."""

    def __init__(self, numbers: int, masks: bool = False) -> None:
        super().__init__()
        self.m, self.nc, self.masks = nn.Conv2d(3, numbers, 1, 8), CLASSES, masks
        self.export = False

    def forward(self, x: Tensor) -> Any:
        rows = self.m(x).flatten(2).transpose(1, 2)
        return [rows] if not self.export else (rows, x[:, :, ::4, ::4]) if self.masks else rows


class Net(nn.Module):
    """A head alone, of stride 8."""

    def __init__(self, *head: Any) -> None:
        super().__init__()
        self.head, self.stride = Head(*head), torch.tensor([8.0])
        self.model = nn.Sequential(self.head)

    def forward(self, images: Tensor) -> Any:
        return self.head(images)


@pytest.fixture(autouse=True)
def heads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upstream, "head_types", lambda: (Head,))


def test_shapes_are_those_of_export_mode_and_the_model_stays_as_it_is() -> None:
    net = Net(7, True).train()
    assert output_shapes(net) == {"outputs": [1, 4, 7], "protos": [1, 3, 4, 4]}
    assert net.training and not net.head.export


@pytest.mark.parametrize("form", ["trt", "onnx"])
def test_suppression_takes_rows_of_boxes_alone(form: str) -> None:
    options = ExportOptions(end2end=form)
    check_exportable(Net(5 + CLASSES), options)
    check_exportable(Net(5 + CLASSES, True), ExportOptions())
    for net, shown in ((Net(5 + CLASSES, True), r"outputs \[1, 4, 7\], protos"), (Net(9), r"outputs \[1, 4, 9\]")):
        with pytest.raises(UserError, match=rf"--end2end takes one output \(B, boxes, 7\), this network has {shown}"):
            check_exportable(net, options)


@pytest.mark.parametrize(
    "options, package",
    [
        (ExportOptions(simplify=True), "onnxsim"),
        (ExportOptions(exporter="dynamo"), "onnxscript"),
        (ExportOptions(), "onnxruntime"),
    ],
)
def test_a_missing_package_is_named(options: ExportOptions, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.onnx, "ops", None, raising=False)  # torch is new enough
    for name in ("onnxsim", "onnxscript", "onnxruntime"):
        monkeypatch.setitem(sys.modules, name, graph)  # stands for a package that is there
    check_exportable(Net(7), options)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=f"needs the package {package} .*: pip install {package}"):
        check_exportable(Net(7), options)


def test_an_older_torch_has_one_exporter(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.onnx, "ops", raising=False)
    with pytest.raises(UserError, match=r"--exporter dynamo needs torch 2\.8"):
        check_exportable(Net(7), ExportOptions(exporter="dynamo"))


def test_what_the_model_does_not_decide() -> None:
    for options, message in (
        (ExportOptions(fp16_remainder=True, opset=17), "--fp16-remainder needs opset 19 or newer, this is 17"),
        (ExportOptions(target_tensorrt="11", opset=18), "--fp16-remainder needs opset 19"),
        (ExportOptions(target_tensorrt="12"), "--target-tensorrt 12 is no TensorRT version"),
    ):
        with pytest.raises(UserError, match=message):
            check_exportable(Net(7), options)


def test_weights_beyond_one_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "MAX_BYTES", 50)
    with pytest.raises(UserError, match="2 GiB"):
        check_exportable(Net(7), ExportOptions())
