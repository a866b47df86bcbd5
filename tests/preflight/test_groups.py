"""The names and groups of a report equal those that the scale groups' log has, for a net exported by both exporters."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn

from quantization.export.quantizer import ExportQuantizer
from quantization.onnx_graph.load import load_onnx
from quantization.placement import scale_groups
from quantization.preflight.report import preflight, report_text
from quantization.quantizers import backend
from quantization.quantizers.modules import QuantAdd, QuantConv2d, QuantUpsample
from support.exported import exported


class Block(nn.Module):
    """Upstream's Conv, its convolution quantized."""

    def __init__(self, inside: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inside, 4, 1)
        self.conv.__class__ = QuantConv2d
        self.conv.add_quantizers()
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.conv(x))


class Bottleneck(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cv1, self.cv2 = Block(4), Block(4)
        self.addop = QuantAdd()

    def forward(self, x: Tensor) -> Tensor:
        return self.addop(x, self.cv2(self.cv1(x)))


class Lateral(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cv1, self.cv2, self.pool = Block(4), Block(8), nn.MaxPool2d(2)
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.up.__class__ = QuantUpsample
        self.up.add_quantizers()

    def forward(self, x: Tensor) -> Tensor:
        return self.cv2(torch.cat((self.up(self.pool(self.cv1(x))), x), 1))


class Yolo(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = nn.Sequential(Block(3), Bottleneck(), Lateral(), nn.Conv2d(4, 2, 1))

    def forward(self, x: Tensor) -> Tensor:
        for module in self.model:
            x = module(x)
        return x


class Outputs(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


def export(model: nn.Module, exporter: str = "torchscript") -> onnx.ModelProto:
    return exported(Outputs(model), exporter)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("exporter", ["torchscript", "dynamo"])
def test_report_names_groups_as_their_log_does(tmp_path: Path, exporter: str) -> None:
    backend.select_backend("native")
    torch.manual_seed(0)
    net = Yolo()
    groups = scale_groups.find_scale_groups(net, export)
    scale_groups.share_quantizers(net, groups)
    for number, (_, name, module, quantizer) in enumerate(backend.named_quantizers(net)):
        is_weight = name == backend.WEIGHT_NAME
        backend.set_amax(
            quantizer, torch.full((module.weight.shape[0], 1, 1, 1), 1.0) if is_weight else torch.tensor(2.0 + number)
        )
    with backend.swapped(net, lambda path, name, quantizer: ExportQuantizer(quantizer, exporter == "dynamo")):
        onnx.save(export(net, exporter), str(tmp_path / "net.onnx"))
    report = preflight(load_onnx(str(tmp_path / "net.onnx")))
    assert report.passed, report_text(report)
    shared = {frozenset(name.split(":")[0] for name in group.names) for group in groups if len(group.members) > 1}
    assert {frozenset(group) for group in report.groups} == shared
    assert frozenset({"model.1.cv1.conv", "model.1.addop"}) in shared and len(shared) == 2
    paths = dict(net.named_modules())
    assert all(layer in paths for finding in report.findings for layer in finding.layers)
    assert {layer for finding in report.findings for layer in finding.layers} == {"model.0.conv"}
