"""The one seam to the quantizer backend; the rest of the bundle makes quantizers through here only.

Two backends have the same interface: pytorch-quantization's ``TensorQuantizer`` where that package imports, and
``quantization.quantizers.native`` otherwise. ``select_backend`` or the environment variable ``QUANT_TOOLS_BACKEND`` chooses.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import sys
import types
from pathlib import Path
from typing import Any, Callable, Iterator

from torch import nn

from quantization.errors import UserError
from quantization.quantizers import native

BACKENDS = ("auto", "native", "pytorch-quantization")
ENVIRONMENT = "QUANT_TOOLS_BACKEND"
INPUT_NAMES = ("_input_quantizer", "_input0_quantizer", "_input1_quantizer")
WEIGHT_NAME = "_weight_quantizer"

_selected: tuple[str, Any, Any] | None = None


def select_backend(name: str | None = None) -> str:
    """Choose the backend for the quantizers made from now on.

    Args:
        name: one of ``BACKENDS``; None takes ``QUANT_TOOLS_BACKEND``, and "auto" where that is not set.

    Returns:
        The name of the backend in use, "native" or "pytorch-quantization".

    Raises:
        UserError: an unknown name, or pytorch-quantization was asked for and does not import.
    """
    global _selected
    source = "--backend" if name else ENVIRONMENT
    name = name or os.environ.get(ENVIRONMENT) or "auto"
    if name not in BACKENDS:
        raise UserError(f"{source} is {name!r}: choose one of {', '.join(BACKENDS)}")
    if name != "native":
        try:
            module = import_pytorch_quantization()
            _selected = ("pytorch-quantization", module.TensorQuantizer, module.QuantDescriptor)
            return _selected[0]
        except ImportError as error:
            if name == "pytorch-quantization":
                raise UserError(
                    f"{source} pytorch-quantization: the package does not import ({error}); install it, or "
                    "use --backend native, which needs no such package"
                ) from error
    _selected = ("native", native.TensorQuantizer, native.QuantDescriptor)
    return _selected[0]


def import_pytorch_quantization() -> Any:
    """Import pytorch-quantization's TensorQuantizer and QuantDescriptor and quiet its per-call logging.

    Its compiled ``cuda_ext`` is called for tensors on a GPU only, and its import is all that a CPU needs: where the
    extension is not built and there is no GPU, a placeholder takes its place.

    Raises:
        ImportError: the package, or something that it needs, is missing.
    """
    import torch

    spec = importlib.util.find_spec("pytorch_quantization")
    if spec is None or not spec.submodule_search_locations:
        raise ImportError("No module named 'pytorch_quantization'")
    if "pytorch_quantization" not in sys.modules:
        files = {file.name.split(".")[0] for file in Path(spec.submodule_search_locations[0]).iterdir()}
        if "version" not in files:  # made by its setup.py; absent in a clone
            _placeholder("pytorch_quantization.version").__version__ = "source"  # type: ignore[attr-defined]
        if "cuda_ext" not in files and not torch.cuda.is_available():
            _placeholder("pytorch_quantization.cuda_ext")
    module = importlib.import_module("pytorch_quantization.nn.modules.tensor_quantizer")
    from absl import logging as absl_logging

    absl_logging.set_verbosity(absl_logging.ERROR)
    return module


def _placeholder(name: str) -> types.ModuleType:
    """An empty module under ``name``."""
    sys.modules[name] = types.ModuleType(name)
    return sys.modules[name]


def backend() -> str:
    """The name of the backend in use; selects it on the first call."""
    return _selected[0] if _selected is not None else select_backend()


def make_quantizer(axis: int | None = None, num_bits: int = 8) -> nn.Module:
    """A quantizer of the selected backend without amax.

    Args:
        axis: None for activations (per tensor), 0 for weights (per output channel).
        num_bits: width of the integer.
    """
    backend()
    assert _selected is not None
    _, quantizer_type, descriptor_type = _selected
    quantizer = quantizer_type(descriptor_type(num_bits=num_bits, axis=axis))
    quantizer._calibrator = None
    return quantizer


def is_quantizer(module: nn.Module) -> bool:
    """Whether ``module`` is a TensorQuantizer of either backend."""
    if isinstance(module, native.TensorQuantizer):
        return True
    package = sys.modules.get("pytorch_quantization.nn.modules.tensor_quantizer")
    return package is not None and isinstance(module, package.TensorQuantizer)


def is_enabled(quantizer: nn.Module) -> bool:
    """Whether ``quantizer`` quantizes; a disabled one passes tensors through."""
    return not quantizer._disabled


def set_amax(quantizer: nn.Module, amax: Any) -> None:
    """Set amax on either backend; pytorch-quantization's own setter refuses a new shape and warns about tensors."""
    value = amax.detach().float().clone()
    if "_amax" in quantizer._buffers:
        quantizer._buffers["_amax"] = value
    else:
        quantizer.register_buffer("_amax", value)


def named_quantizers(model: nn.Module) -> Iterator[tuple[str, str, nn.Module, nn.Module]]:
    """Every place where a quantizer sits: (module path, attribute, module, quantizer).

    A quantizer that several modules share is yielded once for each of them.
    """
    for path, module in model.named_modules():
        for attribute in (*INPUT_NAMES, WEIGHT_NAME):
            quantizer = module._modules.get(attribute)
            if quantizer is not None:
                yield path, attribute, module, quantizer


@contextlib.contextmanager
def swapped(model: nn.Module, make: Callable[[str, str, nn.Module], nn.Module]) -> Iterator[None]:
    """Put other modules in the quantizers' places, and the quantizers back at the end.

    Args:
        model: the quantized model.
        make: called with (module path, attribute, quantizer); gives the module that stands in for it.
    """
    places = list(named_quantizers(model))
    try:
        for path, attribute, module, quantizer in places:
            module._modules[attribute] = make(path, attribute, quantizer)
        yield
    finally:
        for _, attribute, module, quantizer in places:
            module._modules[attribute] = quantizer
