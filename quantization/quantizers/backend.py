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
from typing import Any, Callable, Iterator, Protocol, cast

import torch
from torch import Tensor, nn

from quantization.errors import UserError
from quantization.options import BACKEND_VARIABLE, BACKENDS
from quantization.quantizers import native
from quantization.ranges.levels import BITS, highest_level

INPUT_NAMES = ("_input_quantizer", "_input0_quantizer", "_input1_quantizer")
WEIGHT_NAME = "_weight_quantizer"
OUTPUT_NAME = "_output_quantizer"
# where both backends, and the checkpoints that pickle their quantizers, keep what has no public name
DISABLED, QUANTIZING, BITS_NAME, CALIBRATOR = "_disabled", "_if_quant", "_num_bits", "_calibrator"


class Quantizer(Protocol):
    """The public interface that quantizers of both backends have; the functions below add the rest."""

    @property
    def num_bits(self) -> int:
        """Width of the integer."""

    @property
    def axis(self) -> int | tuple[int, ...] | None:
        """None: one scale per tensor; 0: one per slice along axis 0."""

    @property
    def amax(self) -> Tensor | None:
        """Largest absolute value that is represented: shape () or (C, 1, ...); None before calibration."""

    def enable(self) -> None:
        """Quantize."""

    def disable(self) -> None:
        """Pass every tensor through unchanged."""


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
    source = "--backend" if name else BACKEND_VARIABLE
    name = name or os.environ.get(BACKEND_VARIABLE) or "auto"
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


def make_quantizer(axis: int | None = None, num_bits: int = BITS) -> nn.Module:
    """A quantizer of the selected backend without amax.

    Args:
        axis: None for activations (per tensor), 0 for weights (per output channel).
        num_bits: width of the integer.
    """
    backend()
    assert _selected is not None
    _, quantizer_type, descriptor_type = _selected
    quantizer = quantizer_type(descriptor_type(num_bits=num_bits, axis=axis))
    setattr(quantizer, CALIBRATOR, None)  # pytorch-quantization makes one of its own; ours stay outside
    return cast(nn.Module, quantizer)


def is_quantizer(module: nn.Module) -> bool:
    """Whether ``module`` is a TensorQuantizer of either backend."""
    if isinstance(module, native.TensorQuantizer):
        return True
    package = sys.modules.get("pytorch_quantization.nn.modules.tensor_quantizer")
    return package is not None and isinstance(module, package.TensorQuantizer)


def as_quantizer(module: nn.Module) -> Quantizer:
    """``module``, which is a quantizer of either backend, as its interface; for type checkers."""
    return cast(Quantizer, module)


def is_enabled(quantizer: nn.Module) -> bool:
    """Whether the quantizer has a place in the engine: ``disable`` was not called."""
    return not getattr(quantizer, DISABLED)


def is_quantizing(quantizer: nn.Module) -> bool:
    """Whether the quantizer rounds what it is given now: enabled, and not in a calibration stage."""
    return is_enabled(quantizer) and bool(getattr(quantizer, QUANTIZING))


def set_enabled(quantizer: nn.Module, on: bool) -> None:
    """Enable or disable a quantizer."""
    if on:
        as_quantizer(quantizer).enable()
    else:
        as_quantizer(quantizer).disable()


def bits(quantizer: nn.Module) -> int:
    """Width of a quantizer's integers."""
    return as_quantizer(quantizer).num_bits


def set_bits(quantizer: nn.Module, width: int) -> None:
    """Change the width; calibrate again, since the best range depends on it."""
    setattr(quantizer, BITS_NAME, native.checked_bits(width))


def is_per_channel(quantizer: nn.Module) -> bool:
    """Whether a quantizer has one scale per output channel (axis 0) instead of one per tensor."""
    return as_quantizer(quantizer).axis is not None


def get_amax(quantizer: nn.Module) -> Tensor | None:
    """A quantizer's amax in float32, detached: shape () or (C, 1, ...); None before calibration."""
    amax = as_quantizer(quantizer).amax
    return None if amax is None else amax.detach().float()


def get_scale(quantizer: nn.Module) -> Tensor:
    """A calibrated quantizer's scale in float32, detached: shape () or (C, 1, ...).

    Raises:
        RuntimeError: it was never calibrated.
    """
    amax = get_amax(quantizer)
    if amax is None:
        raise RuntimeError("the quantizer was never calibrated (amax is missing): run calibrate_model first")
    return amax / highest_level(bits(quantizer))


def set_amax(quantizer: nn.Module, amax: Tensor) -> None:
    """Set amax on either backend; pytorch-quantization's own setter refuses a new shape and warns about tensors."""
    quantizer.register_buffer("_amax", amax.detach().float().clone())


def get_quantizer(module: nn.Module, attribute: str = INPUT_NAMES[0]) -> nn.Module:
    """The quantizer at one of a quantized module's places: ``INPUT_NAMES``, ``WEIGHT_NAME`` or ``OUTPUT_NAME``."""
    return cast(nn.Module, getattr(module, attribute))


def put_quantizer(module: nn.Module, quantizer: nn.Module, attribute: str = INPUT_NAMES[0]) -> None:
    """Put a quantizer, or what stands in for it, at one of a module's places."""
    setattr(module, attribute, quantizer)


def named_quantizers(model: nn.Module) -> Iterator[tuple[str, str, nn.Module, nn.Module]]:
    """Every place where a quantizer sits: (module path, attribute, module, quantizer).

    A quantizer that several modules share is yielded once for each of them.
    """
    for path, module in model.named_modules():
        for attribute in (*INPUT_NAMES, WEIGHT_NAME, OUTPUT_NAME):
            quantizer = getattr(module, attribute, None)
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
            put_quantizer(module, make(path, attribute, quantizer), attribute)
        yield
    finally:
        for _, attribute, module, quantizer in places:
            put_quantizer(module, quantizer, attribute)
