"""What the TensorRT version that an ONNX is for (``--target-tensorrt``) decides of its export. No torch."""

from __future__ import annotations

from dataclasses import replace

from quantization.engine import versions
from quantization.engine.versions import Version
from quantization.errors import UserError
from quantization.onnx_graph.fp16 import MIN_OPSET, check_opset
from quantization.options import LOWEST_OPSET, ExportOptions

FLAG = "--target-tensorrt"


def target_version(options: ExportOptions) -> Version | None:
    """The version that the export is for; of ``10`` and ``10.x`` the first. None: no version was named.

    Raises:
        UserError: it is none.
    """
    if options.target_tensorrt is None:
        return None
    return versions.asked_version(options.target_tensorrt, FLAG)


def for_target(options: ExportOptions) -> ExportOptions:
    """The options with FP16 remainder and opset filled in where the user left them to the target.

    Raises:
        UserError: the target cannot run what was asked for, or FP16 takes a newer opset.
    """
    version = target_version(options)
    strongly_typed = version is not None and versions.is_strongly_typed_only(version)
    half = options.fp16_remainder or (strongly_typed and not options.fp32_remainder)
    opset = options.opset
    if opset is None:
        opset = max(LOWEST_OPSET[options.exporter], MIN_OPSET if half else 0)
    if half:
        check_opset(opset)
    if version is not None:
        if half and not versions.has_strong_typing(version):
            raise UserError(
                f"--fp16-remainder is for strongly typed TensorRT, 10 and newer, not for {FLAG} "
                f"{options.target_tensorrt}: leave it out"
            )
        highest = versions.highest_opset(version)
        if opset > highest:
            raise UserError(
                f"opset {opset} is too new for {FLAG} {options.target_tensorrt}, which reads {highest} at most: give "
                "an older --opset, or --exporter torchscript"
            )
    return replace(options, fp16_remainder=half, opset=opset)


def has_tanh_silu(options: ExportOptions) -> bool:
    """Whether SiLU in front of a Q is spelled with tanh: without a target too, since only 8.x was measured."""
    version = target_version(options)
    return version is None or versions.gains_by_tanh_silu(version)


def target_warnings(options: ExportOptions) -> list[str]:
    """What the target will run slowly, or not for long, as the options are."""
    version = target_version(options)
    if version is None:
        return []
    found = []
    if options.fp32_remainder and versions.is_strongly_typed_only(version):
        found.append(
            f"--fp32-remainder: TensorRT {options.target_tensorrt} is strongly typed and runs all that is not quantized "
            "in FP32"
        )
    if options.end2end == "trt" and versions.has_deprecated_nms_plugin(version):
        found.append(
            f"--end2end trt: EfficientNMS_TRT is deprecated in TensorRT {options.target_tensorrt}; --end2end onnx is not"
        )
    return found
