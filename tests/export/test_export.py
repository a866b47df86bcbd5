"""Exports of a small net: scales, the file, what is refused. Compared with torch and numpy."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from quantization.calibration.calibrate import calibrate_model
from quantization.errors import UserError
from quantization.evaluation.onnx_predictor import OnnxPredictor
from quantization.export import export, graph
from quantization.export.export import export_onnx
from quantization.onnx_graph.load import load_onnx
from quantization.options import LOWEST_OPSET, ExportOptions
from quantization.preflight.report import preflight
from quantization.quantizers import backend
from quantization.quantizers.modules import QuantConv2d
from quantization.upstream import model as upstream

SIZE = (16, 24)
TINY = np.finfo(np.float32).tiny  # the smallest normal float32
EXPORTERS = ["torchscript", *(["dynamo"] if hasattr(torch.onnx, "ops") else [])]  # dynamo: torch 2.8


class Head(nn.Module):
    """As an upstream's: one tensor (B, boxes, 5 + classes) in export mode."""

    def __init__(self) -> None:
        super().__init__()
        self.m = nn.Conv2d(6, 7, 1)
        self.export = False

    def forward(self, x: Tensor) -> Any:
        x = self.m(x)
        return x.flatten(2).transpose(1, 2) if self.export else [x]


class Net(nn.Module):
    """Three convolutions that become quantized ones, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second, self.third = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 8, 1), nn.Conv2d(8, 6, 1)
        self.head = Head()

    def forward(self, images: Tensor) -> Any:
        x = nn.functional.silu(self.first(images))
        return self.head(self.third(nn.functional.relu(self.second(x)))) if self.training is False else [x]


@pytest.fixture
def net(monkeypatch: pytest.MonkeyPatch) -> Net:
    monkeypatch.setattr(upstream, "head_types", lambda: (Head,))
    backend.select_backend("native")
    torch.manual_seed(0)
    model = Net().eval().requires_grad_(False)
    for conv in (model.first, model.second, model.third):
        conv.__class__ = QuantConv2d
        conv.add_quantizers()
    return model


@pytest.fixture
def batches() -> list[Tensor]:
    return [torch.rand(2, 3, *SIZE, generator=torch.Generator().manual_seed(1))]


def scales(model: onnx.ModelProto) -> list[np.ndarray]:
    """The scale of each Q and DQ."""
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant" and node.attribute[0].HasField("t"):
            values[node.output[0]] = numpy_helper.to_array(node.attribute[0].t)
    return [values[node.input[1]] for node in model.graph.node if node.op_type.endswith("eLinear")]


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("method", ["mse", "max"])
def test_denormal_channels_and_activations_get_normal_scales(
    net: Net, batches: list[Tensor], tmp_path: Path, exporter: str, method: str
) -> None:
    """Of the first convolution some channels are denormal or zero; all that the third reads is."""
    net.first.weight[0] *= 1e-42
    net.first.weight[1] *= 1e-37  # its amax is normal, but not its scale
    net.first.weight[2] = 0
    net.second.weight *= 1e-40
    net.second.bias.zero_()
    calibrate_model(net, batches, method)
    exported = export_onnx(net, str(tmp_path / "net.onnx"), ExportOptions(SIZE, exporter=exporter))
    found = scales(exported.graph)
    assert len(found) == 12 and sorted({scale.size for scale in found}) == [1, 6, 8]
    assert all((scale >= TINY).all() and np.isfinite(scale).all() for scale in found)
    per_channel = next(scale for scale in found if scale.size == 8)
    assert (per_channel[:3] == np.float32(1) / np.float32(127)).all() and (per_channel[3:] < 0.01).all()
    assert exported.difference.largest < 1e-4 * exported.difference.scale + 1e-5


def test_a_denormal_amax_of_an_older_checkpoint_is_refused(net: Net, batches: list[Tensor], tmp_path: Path) -> None:
    calibrate_model(net, batches, "max")
    amax = backend.get_amax(backend.get_quantizer(net.second, backend.WEIGHT_NAME))
    amax[3] = 1e-37
    backend.set_amax(backend.get_quantizer(net.second, backend.WEIGHT_NAME), amax)
    with pytest.raises(UserError, match="_weight_quantizer"):
        export_onnx(net, str(tmp_path / "net.onnx"), ExportOptions(SIZE))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("exporter", EXPORTERS)
@pytest.mark.parametrize("dynamic", [False, True])
def test_the_file_is_the_graph_and_gives_what_torch_gives(
    net: Net, batches: list[Tensor], tmp_path: Path, exporter: str, dynamic: bool
) -> None:
    calibrate_model(net, batches, "max")
    options = ExportOptions(SIZE, batch=2, dynamic=dynamic, exporter=exporter)
    exported = export_onnx(net, str(tmp_path / "net.onnx"), options)
    assert [file.name for file in tmp_path.iterdir()] == ["net.onnx"]
    assert onnx.load(tmp_path / "net.onnx") == exported.graph
    (entry,), (output,) = exported.graph.graph.input, exported.graph.graph.output
    shapes = [[dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in (entry, output)]
    assert shapes == [[0 if dynamic else 2, 3, *SIZE], [0 if dynamic else 2, SIZE[0] * SIZE[1] // 4, 7]]
    assert exported.difference.largest < 0.02 * exported.difference.scale  # a value may round to the next level
    assert exported.graph.opset_import[0].version == LOWEST_OPSET[exporter]
    assert not net.head.export and not net.training


@pytest.mark.parametrize("form", ["trt", "onnx"])
@pytest.mark.parametrize("dynamic, exporter", [(False, EXPORTERS[0]), (True, EXPORTERS[0]), (True, EXPORTERS[-1])])
def test_suppression_follows_the_rows_in_float32(
    net: Net, batches: list[Tensor], tmp_path: Path, form: str, dynamic: bool, exporter: str
) -> None:
    calibrate_model(net, batches, "max")
    net.head.nc, net.names = 2, {0: "ant", 1: "bee"}
    options = ExportOptions(SIZE, batch=2, dynamic=dynamic, exporter=exporter, fp16_remainder=dynamic)
    rows = export_onnx(net, str(tmp_path / "rows.onnx"), options)
    whole = export_onnx(net, str(tmp_path / "net.onnx"), replace(options, end2end=form, topk_all=5, conf_thres=0.0))
    for exported in (rows, whole):
        assert [entry.value for entry in exported.graph.metadata_props] == ["{0: 'ant', 1: 'bee'}"]
    count = len(rows.graph.graph.node)
    assert (
        whole.graph.graph.node[:count] == rows.graph.graph.node[:]
        and whole.difference.largest == rows.difference.largest
    )
    assert onnx.load(tmp_path / "net.onnx") == whole.graph
    types = {value.name: value.type.tensor_type.elem_type for value in whole.graph.graph.value_info}
    assert types["outputs"] == onnx.TensorProto.FLOAT
    reports = [preflight(load_onnx(str(tmp_path / name))).to_dict() for name in ("rows.onnx", "net.onnx")]
    assert reports[0] == reports[1]
    if form == "onnx":
        predict = OnnxPredictor(str(tmp_path / "net.onnx"))
        assert predict.class_names == ["ant", "bee"]
        number, boxes, *_ = predict.run(np.zeros((3 if dynamic else 2, 3, *SIZE), np.float32))
        assert number.shape == (len(boxes), 1) and boxes.shape[1:] == (5, 4)


@pytest.mark.parametrize("form", [None, "onnx"])
@pytest.mark.parametrize("upstream, iou", [("yolov5", "0.6"), ("yolov7", "0.65")])
def test_the_file_tells_its_upstream(
    net: Net, batches: list[Tensor], tmp_path: Path, form: str | None, upstream: str, iou: str
) -> None:
    """And with suppression in the graph, the score of one class is what that upstream takes for it."""
    calibrate_model(net, batches, "max")
    net.head.nc, net.names = 2, {0: "ant", 1: "bee"}
    options = ExportOptions(SIZE, end2end=form)
    graph = export_onnx(net, str(tmp_path / "net.onnx"), options, upstream=upstream).graph
    metadata = {entry.key: entry.value for entry in graph.metadata_props}
    assert metadata == {"upstream": upstream, "nms_iou": iou, "names": "{0: 'ant', 1: 'bee'}"}


@pytest.mark.skipif(len(EXPORTERS) < 2, reason="the dynamo exporter needs torch 2.8")
def test_both_exporters_quantize_the_same(net: Net, batches: list[Tensor]) -> None:
    calibrate_model(net, batches, "max")
    one, other = (scales(export.quantized_graph(net, ExportOptions(SIZE, exporter=name))) for name in EXPORTERS)
    assert sorted(scale.tobytes() for scale in one) == sorted(scale.tobytes() for scale in other)


def test_nothing_is_left_behind_when_a_check_fails(
    net: Net, batches: list[Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calibrate_model(net, batches, "max")
    net.third.bias[0] = float("nan")
    with pytest.raises(UserError, match="NaN"):
        export_onnx(net, str(tmp_path / "net.onnx"), ExportOptions(SIZE))
    assert list(tmp_path.iterdir()) == []


def test_refusals(net: Net, batches: list[Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = str(tmp_path / "net.onnx")
    with pytest.raises(UserError, match="6 quantizers have no usable scale"):
        export_onnx(net, file, ExportOptions(SIZE))
    calibrate_model(net, batches, "max")
    backend.set_bits(backend.get_quantizer(net.second), 4)
    with pytest.raises(UserError, match="_input_quantizer has 4 bits"):
        export_onnx(net, file, ExportOptions(SIZE))
    backend.set_bits(backend.get_quantizer(net.second), 8)
    monkeypatch.setattr(graph, "MAX_BYTES", 100)
    with pytest.raises(UserError, match="2 GiB"):
        export_onnx(net, file, ExportOptions(SIZE))
