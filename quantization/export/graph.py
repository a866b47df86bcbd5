"""From a model to its ONNX graph by either of torch's exporters."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import warnings
from typing import Any, Iterator

import onnx
import torch
from torch import Tensor, nn

from quantization.errors import UserError
from quantization.export.decode import formula_decode
from quantization.options import LOWEST_OPSET, ExportOptions
from quantization.upstream import model as upstream

MAX_BYTES = 2**31  # of a protobuf file; networks of the YOLO families take a tenth of it at most


class ExportOutputs(nn.Module):
    """The model in export mode with its outputs as a tuple: detections, and mask prototypes of a segmentation network."""

    names = ("outputs", "protos")

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Images (B, 3, H, W) to (B, boxes, 5 + classes) and, if there are masks, (B, m, h, w)."""
        output = self.model(images)
        return tuple(output) if isinstance(output, (tuple, list)) else (output,)


@contextlib.contextmanager
def export_mode(model: nn.Module) -> Iterator[None]:
    """Eval mode, head as for upstream's own export; both restored."""
    training = model.training
    restore = upstream.set_export_mode(model, True)
    model.eval()
    try:
        yield
    finally:
        restore()
        model.train(training)


def export_graph(model: nn.Module, options: ExportOptions = ExportOptions()) -> onnx.ModelProto:
    """The graph of a model as it is, input ``images`` (B, 3, H, W), output ``outputs`` (and ``protos``).

    Args:
        model: quantizers in it must be calibrated or swapped for markers.
        options: of these, ``shape``, ``batch``, ``dynamic``, ``opset``, ``exporter`` and ``decode`` count.

    Raises:
        UserError: the exporter needs a newer torch, or the model is too large for one file.
    """
    refuse_too_large(model)
    images = torch.zeros(options.batch, 3, *options.shape, device=next(model.parameters()).device)
    wrapper = ExportOutputs(model).eval()
    decode = formula_decode(model) if options.decode == "formula" else contextlib.nullcontext()
    export = _by_dynamo if options.exporter == "dynamo" else _by_torchscript
    with export_mode(model), decode, torch.no_grad(), warnings.catch_warnings():
        outputs = wrapper(images)  # lets the head make the grid of this size before it is traced
        # both upstreams compare grid shapes in Python, which the tracer warns about each time; the TorchScript
        # exporter announces its own deprecation
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)
        warnings.filterwarnings("ignore", category=DeprecationWarning, module="torch")
        warnings.filterwarnings("ignore", "You are using the legacy TorchScript-based ONNX", DeprecationWarning)
        graph = export(wrapper, images, list(ExportOutputs.names[: len(outputs)]), options)
    set_output_shapes(graph, [tuple(output.shape[1:]) for output in outputs])
    return graph


def _by_torchscript(wrapper: nn.Module, images: Tensor, outputs: list[str], options: ExportOptions) -> onnx.ModelProto:
    """The graph from torch's tracing exporter."""
    arguments: dict[str, Any] = {"dynamo": False} if "dynamo" in inspect.signature(torch.onnx.export).parameters else {}
    buffer: Any = io.BytesIO()  # which this exporter takes; newer annotations leave it out
    torch.onnx.export(
        wrapper,
        (images,),
        buffer,
        opset_version=options.opset or LOWEST_OPSET["torchscript"],
        input_names=["images"],
        output_names=outputs,
        dynamic_axes={name: {0: "batch"} for name in ("images", *outputs)} if options.dynamic else None,
        **arguments,
    )
    return onnx.load_model_from_string(buffer.getvalue())


def check_exporter(exporter: str) -> None:
    """Raises a UserError if torch's newer exporter is asked for and cannot run here."""
    if exporter != "dynamo":
        return
    if not hasattr(torch.onnx, "ops"):
        raise UserError(f"--exporter dynamo needs torch 2.8 or newer, this is {torch.__version__}: use torchscript")
    require_package("onnxscript", "--exporter dynamo")


def require_package(package: str, asker: str) -> None:
    """Raises a UserError if a package that an option or command needs cannot be imported."""
    try:
        importlib.import_module(package)
    except ImportError as error:
        raise UserError(f"{asker} needs the package {package} ({error}): pip install {package}") from error


def _by_dynamo(wrapper: nn.Module, images: Tensor, outputs: list[str], options: ExportOptions) -> onnx.ModelProto:
    """The graph from torch's newer exporter."""
    arguments: dict[str, Any] = {}
    if options.dynamic:
        images = images[:1].repeat(max(2, options.batch), 1, 1, 1)  # size 1 would be taken for fixed
        arguments["dynamic_shapes"] = {"images": {0: torch.export.Dim("batch", min=1)}}
    program = torch.onnx.export(
        wrapper,
        (images,),
        opset_version=options.opset or LOWEST_OPSET["dynamo"],
        input_names=["images"],
        output_names=outputs,
        dynamo=True,
        verbose=False,
        **arguments,
    )
    assert program is not None
    return program.model_proto


def refuse_too_large(model: nn.Module) -> None:
    """Raises a UserError if the weights alone exceed what one protobuf file holds."""
    size = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    if size >= MAX_BYTES:
        raise UserError(f"the model's weights take {size / 2**30:.1f} GiB: an ONNX file holds 2 GiB at most")


def set_output_shapes(graph: onnx.ModelProto, shapes: list[tuple[int, ...]]) -> None:
    """Write down the outputs' shapes behind the batch, which the exporter leaves open although they are fixed."""
    for value, shape in zip(graph.graph.output, shapes):
        for dim, size in zip(value.type.tensor_type.shape.dim[1:], shape):
            dim.dim_value = size
