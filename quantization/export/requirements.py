"""What an export needs, checked on the model alone: before hours of quantization, and before any file."""

from __future__ import annotations

import torch
from torch import nn

from quantization.export.end2end import refuse_other_outputs
from quantization.export.graph import ExportOutputs, check_exporter, export_mode, refuse_too_large, require_package
from quantization.export.target import for_target
from quantization.options import ExportOptions
from quantization.upstream.model import class_count, largest_stride


def check_exportable(model: nn.Module, options: ExportOptions) -> None:
    """Check what does not depend on the model's quantizers.

    Args:
        model: fused; in float or quantized.
        options: of the export.

    Raises:
        UserError: options do not fit each other or the model, a package is missing, or the model is too large.
    """
    for_target(options)
    check_exporter(options.exporter)
    require_package("onnxruntime", "export")
    if options.simplify:
        require_package("onnxsim", "--simplify")
    refuse_too_large(model)
    if options.end2end is not None:
        refuse_other_outputs(output_shapes(model), class_count(model))


def output_shapes(model: nn.Module) -> dict[str, list[int]]:
    """Shapes of what an export of the model puts out, by name, for one image of the smallest size."""
    side = 2 * largest_stride(model)
    first = next(model.parameters())
    with export_mode(model), torch.no_grad():
        outputs = ExportOutputs(model)(torch.zeros(1, 3, side, side, device=first.device, dtype=first.dtype))
    return {name: list(output.shape) for name, output in zip(ExportOutputs.names, outputs)}
