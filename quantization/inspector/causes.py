"""Why an engine does extra work: the causes, and what a finding about one of them holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Sequence

from quantization.inspector.records import Layer, time_ms


class Cause(NamedTuple):
    """What all findings of one cause have in common.

    Attributes:
        why: what happens.
        change: what to do about it; empty where nothing can be done or each finding says something else.
    """

    why: str
    change: str = ""


CAUSES: dict[str, Cause] = {
    "scales": Cause(
        "the readers of one tensor, directly or through a Concat, have quantizers (Q nodes) of their own and so "
        "different scales: the convolution that makes it emits float, its activation is a layer of its own, and each "
        "scale is one more Reformat",
        "give all readers of such a tensor one quantizer",
    ),
    "rescale": Cause("an INT8 tensor is converted to another scale", "one quantizer on both sides"),
    "sum": Cause(
        "an operand of a sum is not quantized: the sum is in float, and a convolution before it is not fused with its "
        "activation",
        "quantize both operands",
    ),
    "float reader": Cause(
        "a float convolution reads a tensor as float, so that the INT8 convolution that makes it emits float and is "
        "not fused with its activation",
        "quantize the input of that reader too, its weights may stay float: one Int8-to-float Reformat is all that "
        "remains (quant-tools, for a detect head: --head auto, its default, does so for the largest tensor that INT8 layers "
        "read too, --head shared for all of those, --head input for the others too)",
    ),
    "detect": Cause(
        "a detect convolution reads float, for accuracy, so that the INT8 convolution that makes its input emits float "
        "and is not fused with its activation"
    ),
    "float layer": Cause("a layer that computes in float reads what others read in INT8"),
    "float weights": Cause("a convolution computes in float from an INT8 tensor"),
    "float producer": Cause("a convolution computes in float, its readers in INT8"),
    "fp32": Cause(
        "a float convolution runs in FP32 although the engine has FP16 layers: TensorRT 8.6 fuses convolution and "
        "activation in front of a Q, for which it has no FP16 kernels"
    ),
    "quantize": Cause("a float tensor is quantized by a layer of its own"),
    "dequantize": Cause("an INT8 tensor is turned into float"),
    "split": Cause("an INT8 convolution is not fused with its activation"),
    "precision": Cause(
        "the other engine computes a convolution in another precision and is faster, Reformats included"
    ),
    "stem": Cause("the image is padded to 32 channels for an INT8 convolution"),
    "concat": Cause("branches are copied into the output of a Concat, as TensorRT does in float engines too"),
    "boundary": Cause("an input or output of the network is converted"),
    "layout": Cause("a tensor changes its layout"),
    "identity": Cause(
        "biases are copied at every inference: the export merged equal ones through Identity nodes (random weights "
        "have many equal ones)",
        "fold Identity nodes before the build; do not compare such an engine with one that lacks them",
    ),
    "constants": Cause("a constant is converted at every inference"),
}

FLOAT_STEM = "quant-tools: --stem float"
# what quant-tools changes by itself
RULED = ("scales", "rescale", "sum")
RULES = "quant-tools does this by itself: quantize without --no-rules"


@dataclass(frozen=True)
class EngineFinding:
    """One place of extra work.

    Attributes:
        key: (cause, place); equal for the same finding in another engine. The cause is one of ``CAUSES``.
        text: what happens there.
        advice: what to change there, or a remark if nothing can be; may be empty.
        layers: indices of the layers that it costs.
        avoidable: False for what this network needs or TensorRT chooses, whatever the Q/DQ.
        cost_ms: time of ``layers``, or how much longer they take than the other engine's; 0 without a profile.
    """

    key: tuple[str, str]
    text: str
    advice: str
    layers: tuple[int, ...]
    avoidable: bool
    cost_ms: float

    @property
    def cause(self) -> str:
        """One of ``CAUSES``."""
        return self.key[0]


@dataclass(frozen=True)
class Evidence:
    """What one finding is to explain.

    Attributes:
        layers: that it costs; none of them is in another finding.
        conv: the convolution that they stand for, where one was found with them.
        activation: the layer that was split off from it, if any.
    """

    layers: list[Layer]
    conv: Layer | None = None
    activation: Layer | None = None

    def convolution(self) -> Layer:
        """``conv``, where there always is one."""
        assert self.conv is not None
        return self.conv

    def split_off(self) -> Layer:
        """``activation``, where there always is one."""
        assert self.activation is not None
        return self.activation

    def sorted_layers(self) -> list[Layer]:
        """``layers`` in the order of execution."""
        return sorted(self.layers, key=lambda layer: layer.index)


def make_finding(
    key: tuple[str, str], text: str, advice: str, layers: Sequence[Layer], avoidable: bool = True
) -> EngineFinding:
    """A finding that costs the time of ``layers``."""
    distinct = {layer.index: layer for layer in layers}
    return EngineFinding(key, text, advice, tuple(sorted(distinct)), avoidable, time_ms(list(distinct.values())))
