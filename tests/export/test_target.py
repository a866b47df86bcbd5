"""What a TensorRT version decides of an export."""

from __future__ import annotations

import pytest

from quantization.errors import UserError
from quantization.export.target import for_target, has_tanh_silu, target_warnings
from quantization.options import ExportOptions


@pytest.mark.parametrize(
    "target, more, half, opset, tanh",
    [
        (None, {}, False, 13, True),
        (None, {"fp16_remainder": True}, True, 19, True),
        (None, {"exporter": "dynamo"}, False, 18, True),
        ("8.5", {}, False, 13, True),
        ("8.6", {"opset": 17}, False, 17, True),
        ("10.x", {}, False, 13, False),
        ("10.3", {"fp16_remainder": True}, True, 19, False),
        ("10.x", {"exporter": "dynamo"}, False, 18, False),
        ("11.x", {}, True, 19, False),
        ("11.5", {"exporter": "dynamo"}, True, 19, False),
        ("11.x", {"opset": 21}, True, 21, False),
        ("11.x", {"fp32_remainder": True}, False, 13, False),
        ("11", {}, True, 19, False),
        ("10", {"exporter": "dynamo"}, False, 18, False),
        ("10.13.2", {"opset": 20}, False, 20, False),
        ("8", {"opset": 17}, False, 17, True),
        ("8.6.1", {}, False, 13, True),
    ],
)
def test_the_target_chooses(target: str | None, more: dict, half: bool, opset: int, tanh: bool) -> None:
    options = ExportOptions(target_tensorrt=target, **more)
    found = for_target(options)
    assert (found.fp16_remainder, found.opset, has_tanh_silu(options)) == (half, opset, tanh)
    assert for_target(found) == found


@pytest.mark.parametrize(
    "target, more, message",
    [
        ("8.4", {}, "--target-tensorrt 8.4 is no TensorRT version from 8.5 to 11: give one as 8.5, 8.6.1, 10"),
        ("latest", {}, "--target-tensorrt latest is no TensorRT version from 8.5 to 11: give one as 8.5"),
        ("1013", {}, "from 8.5 to 11"),
        ("8.6abc", {}, "from 8.5 to 11"),
        ("11.x.x", {}, "from 8.5 to 11"),
        ("", {}, "from 8.5 to 11"),
        ("8.6", {"fp16_remainder": True}, "for strongly typed TensorRT, 10 and newer, not for --target-tensorrt 8.6"),
        ("8.6", {"opset": 18}, "opset 18 is too new for --target-tensorrt 8.6, which reads 17 at most"),
        ("8.6", {"exporter": "dynamo"}, "opset 18 is too new"),
        ("10.x", {"opset": 21}, "reads 20 at most"),
    ],
)
def test_what_the_target_cannot_run_is_refused(target: str, more: dict, message: str) -> None:
    with pytest.raises(UserError) as caught:
        for_target(ExportOptions(target_tensorrt=target, **more))
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_both_remainders_are_refused() -> None:
    with pytest.raises(UserError, match="contradict each other"):
        ExportOptions(fp16_remainder=True, fp32_remainder=True)


@pytest.mark.parametrize(
    "target, more, warned",
    [
        (None, {"fp32_remainder": True, "end2end": "trt"}, []),
        ("8.6", {"fp32_remainder": True, "end2end": "trt"}, []),
        ("10.x", {"end2end": "trt"}, []),
        ("10.12", {"end2end": "trt"}, ["--end2end trt: EfficientNMS_TRT is deprecated"]),
        ("11.x", {"fp32_remainder": True, "end2end": "onnx"}, ["--fp32-remainder: TensorRT 11.x is strongly typed"]),
        ("11.x", {}, []),
    ],
)
def test_warnings(target: str | None, more: dict, warned: list[str]) -> None:
    found = target_warnings(ExportOptions(target_tensorrt=target, **more))
    assert len(found) == len(warned) and all(map(str.startswith, found, warned))
