"""Activations that TensorRT does not take into every INT8 convolution's kernel, by what torch and ONNX call them.

    conv --LeakyReLU--Q--         the convolution emits FP32 if its kernel cannot hold the activation ...
    conv --Q--LeakyReLU--Q--      ... and INT8 with a Q of its own; the activation is then one kernel on INT8

TensorRT's documentation lists ReLU, Clip (ReLU6) and GELU as fused with any convolution, and its engines fuse SiLU. Of the
others LeakyReLU has been examined: TensorRT 8.6 fuses it with convolutions that read 32 channels or more, and not with the one
that reads the image (docs/placement.md).
"""

from __future__ import annotations

# class of torch.nn to ONNX operator
UNFUSED = {
    "LeakyReLU": "LeakyRelu",
    "PReLU": "PRelu",
    "ELU": "Elu",
    "CELU": "Celu",
    "SELU": "Selu",
    "Hardswish": "HardSwish",
    "Mish": "Mish",
}
# first operator of those that an exporter writes in several: x * HardSigmoid(x), x * tanh(Softplus(x))
DECOMPOSED = {"Hardswish": "HardSigmoid", "Mish": "Softplus"}
UNFUSED_OPERATORS = {*UNFUSED.values(), *DECOMPOSED.values()}
