"""Small float ONNX graphs with the blocks of newer detectors: C2f, C3k2 with attention, a head with distributions."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import numpy_helper

from support.qdq_net import Net

SIDE = 16


class FloatNet(Net):
    """Writes float graphs with one path per layer, weights that keep the signal's energy, and biases."""

    def layer(self, x: str, path: str, inside: int, out: int, act: str = "silu", **attributes: object) -> str:
        """A convolution with a bias and an activation: "silu", an operator or ""; ``group``, ``kernel``, ``gain`` count."""
        gain = float(str(attributes.pop("gain", 1)))
        group, kernel = int(str(attributes.pop("group", 1))), int(str(attributes.pop("kernel", 1)))
        fan = inside // group * kernel * kernel
        weight = self.weight(path, out, inside // group, kernel)
        values = numpy_helper.to_array(self.initializers[-1])
        self.initializers[-1].CopyFrom(numpy_helper.from_array(values * np.float32(gain * (3 / fan) ** 0.5), weight))
        bias = f"model.{path}.bias"
        self.initializers.append(numpy_helper.from_array(np.linspace(-0.3, 0.3, out, dtype=np.float32), bias))
        pads = [(kernel - 1) // 2] * 4
        y = self.op("Conv", [x, weight, bias], path.replace(".", "/"), group=group, pads=pads, **attributes)
        return self.silu(y) if act == "silu" else self.op(act, [y]) if act else y

    def stem(self, out: int = 8) -> str:
        """YOLOv5's, which stays float."""
        return self.layer("images", "model.0.conv", 3, out, kernel=6, strides=[2, 2])

    def halves(self, x: str, channels: int) -> list[str]:
        """Both halves of a tensor's channels."""
        return self.split(x, [channels // 2] * 2, axis=1)

    def split(self, x: str, sizes: list[int], axis: int) -> list[str]:
        first = self.op("Split", [x, self.constant(np.array(sizes, np.int64))], axis=axis)
        node = self.nodes[-1]
        node.output.extend(f"{first}_{number}" for number in range(1, len(sizes)))
        return list(node.output)

    def shape(self, x: str, *sizes: int) -> str:
        return self.op("Reshape", [x, self.constant(np.array(sizes, np.int64))])

    def c2f(self, x: str, path: str, channels: int = 8, blocks: int = 2) -> str:
        """YOLOv8's block: the second half goes through shortcuts, and every stage goes to the Concat too."""
        parts = self.halves(self.layer(x, f"{path}.cv1.conv", channels, channels), channels)
        half = channels // 2
        for number in range(blocks):
            before, name = parts[-1], f"{path}.m.{number}"
            y = self.layer(before, f"{name}.cv1.conv", half, half, kernel=3)
            y = self.layer(y, f"{name}.cv2.conv", half, half, kernel=3)
            parts.append(self.op("Add", [before, y], name.replace(".", "/")))
        joined = self.op("Concat", parts, path.replace(".", "/"), axis=1)
        return self.layer(joined, f"{path}.cv2.conv", half * len(parts), channels)

    def psa(self, x: str, path: str, channels: int = 8, cells: int = SIDE * SIDE // 4) -> str:
        """YOLO11's attention block: qkv convolution, product, Softmax, product, depthwise position, sums."""
        half = channels // 2
        a, b = self.halves(self.layer(x, f"{path}.cv1.conv", channels, channels), channels)
        qkv = self.layer(b, f"{path}.attn.qkv.conv", half, 3 * half, act="", gain=0.3)
        q, k, v = self.split(self.shape(qkv, -1, 1, 3 * half, cells), [half] * 3, axis=2)
        scores = self.op("MatMul", [self.op("Transpose", [q], perm=[0, 1, 3, 2]), k])
        weights = self.op("Softmax", [self.op("Mul", [scores, self.constant(np.float32(half**-0.5))])], axis=-1)
        mixed = self.op("MatMul", [v, self.op("Transpose", [weights], perm=[0, 1, 3, 2])])
        side = int(cells**0.5)
        position = self.layer(
            self.shape(v, -1, half, side, side),
            f"{path}.attn.pe.conv",
            half,
            half,
            act="",
            group=half,
            kernel=3,
            gain=0.5,
        )
        total = self.op("Add", [self.shape(mixed, -1, half, side, side), position], f"{path}.attn".replace(".", "/"))
        b = self.op(
            "Add", [b, self.layer(total, f"{path}.attn.proj.conv", half, half, act="", gain=0.3)], f"{path}/one"
        )
        y = self.layer(
            self.layer(b, f"{path}.ffn.0.conv", half, channels), f"{path}.ffn.1.conv", channels, half, act=""
        )
        b = self.op("Add", [b, y], f"{path}/two")
        return self.layer(self.op("Concat", [a, b], axis=1), f"{path}.cv2.conv", channels, channels)

    def dfl_head(self, x: str, channels: int = 8, cells: int = SIDE * SIDE // 4, bins: int = 4) -> None:
        """YOLOv8's head on one map: distributions over distances, their mean, scores; (B, 4 + 2, cells)."""
        boxes = self.layer(
            self.layer(x, "model.9.cv2.0.conv", channels, channels), "model.9.cv2.2", channels, 4 * bins, ""
        )
        scores = self.layer(self.layer(x, "model.9.cv3.0.conv", channels, channels), "model.9.cv3.2", channels, 2, "")
        both = self.op("Concat", [self.shape(boxes, 0, 4 * bins, cells), self.shape(scores, 0, 2, cells)], axis=1)
        boxes, scores = self.split(both, [4 * bins, 2], axis=1)
        spread = self.op("Transpose", [self.shape(boxes, 0, 4, bins, cells)], perm=[0, 2, 1, 3])
        weight = "model.9.dfl.conv.weight"
        self.initializers.append(
            numpy_helper.from_array(np.arange(bins, dtype=np.float32).reshape(1, -1, 1, 1), weight)
        )
        mean = self.op("Conv", [self.op("Softmax", [spread], axis=1), weight], "model/9/dfl")
        boxes = self.op("Mul", [self.shape(mean, 0, 4, cells), self.constant(np.float32(8))])
        self.outputs.append((self.op("Concat", [boxes, self.op("Sigmoid", [scores])], axis=1), 3))


def finished(net: FloatNet, batch: object = 1) -> onnx.ModelProto:
    """The graph, with a name of its own for each node."""
    model = net.model((batch, 3, SIDE, SIDE))
    for number, node in enumerate(model.graph.node):
        node.name = f"{node.name}_{number}"
    return model


def detector(batch: object = 1, opset: int = 13, style: str = "torchscript") -> onnx.ModelProto:
    """Stem, C2f, attention, a lateral with a nearest Resize, and the head."""
    net = FloatNet(style)
    x = net.c2f(net.stem(), "model.1")
    y = net.psa(x, "model.2")
    down = net.layer(y, "model.3.conv", 8, 8, kernel=3, strides=[2, 2])
    joined = net.op("Concat", [net.resize(down), x], "model/4", axis=1)
    net.dfl_head(net.layer(joined, "model.5.conv", 16, 8))
    model = finished(net, batch)
    model.opset_import[0].version = opset
    onnx.checker.check_model(model)
    return model


def noise(count: int = 6, seed: int = 0) -> np.ndarray:
    """Images (count, 3, SIDE, SIDE) in 0..1."""
    return np.random.default_rng(seed).random((count, 3, SIDE, SIDE), dtype=np.float32)
