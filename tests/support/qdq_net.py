"""Writes small Q/DQ graphs in the forms of both torch exporters, and reads reports."""

from __future__ import annotations

import zlib
from typing import Any, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from quantization.preflight.findings import Finding
from quantization.preflight.report import Report, preflight

STYLES = ("torchscript", "dynamo")
CHANNELS = 4


class Net:
    """Writes graphs as the exporters do: TorchScript with Constant nodes and paths, dynamo with initializers."""

    def __init__(self, style: str = "torchscript") -> None:
        self.style = style
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.outputs: list[tuple[str, int]] = []  # name and rank
        self.count = 0

    def constant(self, value: np.ndarray) -> str:
        name = f"c{self.count}"
        self.count += 1
        tensor = numpy_helper.from_array(value, name)
        if self.style == "dynamo":
            self.initializers.append(tensor)
        else:
            self.nodes.append(helper.make_node("Constant", [], [name], value=tensor))
        return name

    def op(self, op_type: str, inputs: Sequence[str], path: str = "", **attributes: Any) -> str:
        self.count += 1
        name = f"{op_type}_{self.count}"
        node = helper.make_node(op_type, inputs, [name + "_out"], **attributes)
        scopes = ["model", *path.split("/")] if path else ["model"]
        if self.style == "dynamo":
            node.name = f"node_{name}"
            item = node.metadata_props.add()
            item.key, item.value = "pkg.torch.onnx.name_scopes", str(["", *scopes, name.lower()])
        else:
            node.name = "/" + "/".join([*scopes, op_type])
        self.nodes.append(node)
        return name + "_out"

    def qdq(
        self,
        x: str,
        scale: Any,
        zero: Any = 0,
        dtype: Any = np.int8,
        dq_scale: Any = None,
        axis: int = 1,
        with_zero: bool = True,
    ) -> str:
        """A Q/DQ pair. Many parameters: each is one way to break a pair."""
        names = [self.constant(np.asarray(scale, np.float32))]
        zeros = [self.constant(np.full(np.shape(scale), zero, dtype))] if with_zero else []
        q = self.op("QuantizeLinear", [x, *names, *zeros], axis=axis)
        if dq_scale is not None:
            names = [self.constant(np.asarray(dq_scale, np.float32))]
        return self.op("DequantizeLinear", [q, *names, *zeros], axis=axis)

    def weight(self, path: str, out: int, inside: int = CHANNELS, kernel: int = 1) -> str:
        name = f"model.{path}.weight"
        values = (
            np.random.default_rng(zlib.crc32(path.encode()))
            .normal(size=(out, inside, kernel, kernel))
            .astype(np.float32)
        )
        self.initializers.append(numpy_helper.from_array(values, name))
        return name

    def conv(
        self,
        x: str,
        path: str,
        scale: float | None = 0.1,
        act: str = "silu",
        out: int = CHANNELS,
        inside: int = CHANNELS,
        weight_scale: Any = "channel",
        weight_axis: int = 0,
        quantize_weight: bool = True,
        bias: str | None = None,
        stride: int = 1,
        kernel: int = 1,
    ) -> str:
        """Conv and activation; ``scale`` None leaves it in float. Many parameters: each is one way to break a layer."""
        weight = self.weight(path, out, inside, kernel)
        if scale is not None:
            x = self.qdq(x, scale)
        if scale is not None and quantize_weight:
            weight = self.qdq(
                weight, np.full(out, 0.01) if isinstance(weight_scale, str) else weight_scale, axis=weight_axis
            )
        sizes = {"strides": [stride] * 2, "pads": [(kernel - 1) // 2] * 4}
        y = self.op("Conv", [x, weight, bias] if bias else [x, weight], path.replace(".", "/"), **sizes)
        return self.silu(y) if act == "silu" else self.op(act, [y]) if act else y

    def silu(self, x: str) -> str:
        return self.op("Mul", [x, self.op("Sigmoid", [x])])

    def resize(self, x: str, mode: str = "nearest") -> str:
        return self.op("Resize", [x, "", self.constant(np.array([1, 1, 2, 2], np.float32))], mode=mode)

    def head(self, x: str, path: str = "model.9", scale: float | None = None) -> None:
        """A convolution with a float weight whose map is a graph output; ``scale``: of its input."""
        self.outputs.append((self.conv(x, path, scale, act="", quantize_weight=False), 4))

    def model(self, inputs: Sequence[Any] = ("N", 4, 8, 8), element: int = TensorProto.FLOAT) -> onnx.ModelProto:
        images = helper.make_tensor_value_info("images", element, list(inputs))
        outputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [None] * rank) for name, rank in self.outputs]
        graph = helper.make_graph(self.nodes, "net", [images], outputs, self.initializers)
        opset = 18 if self.style == "dynamo" else 13
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
        onnx.checker.check_model(model)
        return model


def pyramid(style: str, laterals: tuple[float, float] = (0.1, 0.1), cast: bool = False) -> onnx.ModelProto:
    """Backbone, lateral, Upsample, downward path, two heads: yolov5's neck in small."""
    net = Net(style)
    image = net.op("Cast", ["images"], to=TensorProto.FLOAT) if cast else "images"
    p3 = net.conv(image, "model.0")
    p4 = net.conv(net.conv(net.op("MaxPool", [p3], kernel_shape=[2, 2], strides=[2, 2]), "model.1"), "model.2")
    if cast:  # the neck in FP16 between Q/DQ in FP32
        p4 = net.op("Cast", [net.op("Cast", [p4], to=TensorProto.FLOAT16)], to=TensorProto.FLOAT)
    up = net.op("Concat", [net.resize(p4), p3], "model.3", axis=1)
    n3 = net.conv(up, "model.4", laterals[0], inside=8)
    down = net.op(
        "Concat",
        [net.op("MaxPool", [net.conv(n3, "model.5", 0.3)], kernel_shape=[2, 2], strides=[2, 2]), p4],
        "model.6",
        axis=1,
    )
    net.head(n3, "model.8")
    net.head(net.conv(down, "model.7", laterals[1], inside=8), "model.9")
    return net.model((1, 4, 8, 8), TensorProto.FLOAT16 if cast else TensorProto.FLOAT)


def failures(report: Report) -> list[str]:
    return [finding.check for finding in report.findings if finding.severity == "fail"]


def checks(report: Report, severity: str) -> list[str]:
    return [finding.check for finding in report.findings if finding.severity == severity]


def failing(report: Report) -> Finding:
    found = [finding for finding in report.findings if finding.severity == "fail"]
    assert len(found) == 1, [finding.what for finding in found]
    return found[0]


def single(style: str, **options: Any) -> Report:
    """Image - conv - conv - head; ``options`` go to the second convolution."""
    net = Net(style)
    x = net.conv("images", "model.0")
    net.head(net.conv(x, "model.1", **options))
    return preflight(net.model())
