"""What a checkpoint may hold, and how each part is made from plain values; see ``safe_load``."""

from __future__ import annotations

import datetime
import importlib
import math
import pathlib
import re
from collections import OrderedDict, defaultdict
from dataclasses import dataclass
from pickle import UnpicklingError
from types import FunctionType, SimpleNamespace
from typing import Any, Callable

import numpy as np
import torch
from torch import Tensor, nn

from quantization.errors import UserError
from quantization.upstream.unpickle import Name, checked_key

# a tensor may be seen as larger than its values (expanded anchors), all together up to this many bytes and file sizes
SMALL, LARGEST_RATIO = 64 * 2**20, 4
# modules whose layers are allowed; a layer is a subclass of nn.Module
LAYERS = (
    "torch.nn.modules.",
    "models.yolo",
    "models.common",
    "models.experimental",
    "quantization.modules",
    "quantization.native",
    "quantization.quantizers.",
    "pytorch_quantization.nn.modules.",
)
# layers whose forward opens files or addresses, or looks for other weights
NO_LAYERS = {"detectmultibackend", "autoshape", "loadimages"}
DESCRIPTORS = {
    ("quantization.quantizers.native", "QuantDescriptor"),
    ("quantization.native", "QuantDescriptor"),
    ("pytorch_quantization.tensor_quant", "QuantDescriptor"),
    ("pytorch_quantization.tensor_quant", "ScaledQuantDescriptor"),
}
# fused layers hold a bound method of their own as ``forward``, which is pickled as getattr(layer, name)
FORWARDS = set("forward forward_fuse fuseforward fusevforward forward_once forward_chunk forward_chunk_split".split())
STORAGES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "UntypedStorage": torch.uint8,
    "ComplexFloatStorage": torch.complex64,
    "ComplexDoubleStorage": torch.complex128,
}
DTYPE = re.compile(r"[<>=|]?([biufc]\d{1,2}|[SUO?]\d{0,6}|[mM]8)\Z")


def item_size(dtype: torch.dtype) -> int:
    """Bytes per value; ``dtype.itemsize`` came with torch 2.1."""
    return torch.empty((), dtype=dtype).element_size()


@dataclass
class Storage:
    """The values behind tensors.

    Attributes:
        data: (bytes,) uint8.
        dtype: as which they are seen.
    """

    data: Tensor
    dtype: torch.dtype

    def viewed(self, dtype: torch.dtype) -> Storage:
        """The same values as another type."""
        return self if dtype == self.dtype else Storage(self.data, dtype)

    def fill(self, stream: Any) -> None:
        """Read the values.

        Raises:
            UnpicklingError: there are too few.
        """
        size = self.data.numel()
        if size and stream.readinto(memoryview(self.data.numpy())) != size:  # type: ignore[arg-type]
            raise UnpicklingError("the values of a tensor are missing")


class TensorSizes:
    """How large the tensors of a file may be together, in bytes."""

    def __init__(self, file_size: int) -> None:
        self._left = SMALL + LARGEST_RATIO * file_size

    def tensor(self, storage: Any, offset: int, size: Any, stride: Any, *others: Any) -> Tensor:
        """As torch._utils._rebuild_tensor_v2; hooks are dropped."""
        if not isinstance(storage, Storage) or not all(type(part) is int and part >= 0 for part in (*size, *stride)):
            raise UnpicklingError("a tensor has no values or no shape")
        self._left -= math.prod(size) * item_size(storage.dtype)
        if self._left < 0:
            raise UnpicklingError("its tensors are far larger than the file")
        values = storage.data.view(storage.dtype).as_strided(tuple(size), tuple(stride), offset).data  # checks bounds
        return values.requires_grad_(True) if others and others[0] is True else values

    def with_attributes(self, maker: Any, kind: Any, arguments: Any, _: Any) -> Tensor:
        """As torch._tensor._rebuild_from_type_v2, of a tensor with Python attributes, such as nn.Buffer's; they are dropped."""
        if str(maker) not in TENSORS or str(kind) != "torch.Tensor" or type(arguments) is not tuple:
            raise UnpicklingError(f"a tensor is a {str(kind)[:80]}")
        return self.tensor(*arguments)


class _DType:
    """A numpy dtype in the making: its state is nothing but the byte order."""

    def __init__(self, name: str, *_: Any) -> None:
        if type(name) is not str or not DTYPE.match(name):
            raise UnpicklingError("an array has an unknown type")
        self.value = np.dtype(name)

    def set(self, state: Any) -> None:
        if state[1] in ("<", ">"):
            self.value = self.value.newbyteorder(state[1])


class _Array(np.ndarray):
    """An array in the making, and made: its state is checked, then numpy's own way sets it."""

    def set(self, state: Any) -> None:
        _, shape, dtype, fortran, data = state
        if not isinstance(dtype, _DType) or not all(type(side) is int and side >= 0 for side in shape):
            raise UnpicklingError("an array has no type or no shape")
        wanted = list if dtype.value.hasobject else bytes
        count = len(data) if type(data) is wanted else -1
        if count != math.prod(shape) * (1 if wanted is list else dtype.value.itemsize):
            raise UnpicklingError("an array's values are missing")
        super().__setstate__((1, shape, dtype.value, fortran is True, data))  # type: ignore[arg-type]  # a Python bool


def _scalar(dtype: Any, data: Any = b"") -> Any:
    if not isinstance(dtype, _DType) or type(data) is not bytes or dtype.value.hasobject:
        raise UnpicklingError("a number has no type")
    return np.frombuffer(data, dtype.value, 1)[0]


def _encode(text: str, encoding: str = "latin1") -> bytes:
    if type(text) is not str or encoding not in ("latin1", "latin-1"):
        raise UnpicklingError("it encodes something")
    return text.encode("latin1")


def _bytearray(data: Any = b"", *encoding: str) -> bytearray:
    return bytearray(_encode(data, *encoding) if encoding else bytes(_only(bytes, data)))


def _only(kind: type, value: Any) -> Any:
    if type(value) is not kind:
        raise UnpicklingError(f"a {kind.__name__} is expected, it has a {type(value).__name__}")
    return value


def _parameter(data: Any, requires_grad: Any = True, *others: Any) -> nn.Parameter:
    """As torch._utils._rebuild_parameter and ..._with_state; hooks and attributes are dropped."""
    if not isinstance(data, Tensor):
        raise UnpicklingError("a parameter has no values")
    return nn.Parameter(data.detach(), requires_grad is True)


def _bound_forward(layer: Any, name: str) -> Any:
    """getattr, for what a fused layer needs of it: a method of its class."""
    method = getattr(type(layer), name, None) if isinstance(layer, nn.Module) and name in FORWARDS else None
    if not isinstance(method, FunctionType):
        raise UnpicklingError(f"{str(name)[:40]} of a {type(layer).__name__} is not allowed")
    return method.__get__(layer)


def _paths(kind: type) -> Callable[..., Any]:
    return lambda *parts: kind(*(_only(str, part) for part in parts))


MAKERS: dict[str, Callable[..., Any]] = {
    "builtins.getattr": _bound_forward,
    "builtins.set": lambda items=(): set(map(checked_key, items)),
    "builtins.frozenset": lambda items=(): frozenset(map(checked_key, items)),
    "builtins.slice": lambda *ends: slice(*ends),
    "builtins.complex": lambda real, imaginary: complex(_only(float, real), _only(float, imaginary)),
    "builtins.bytearray": _bytearray,
    "builtins.bytes": lambda: b"",
    "collections.OrderedDict": lambda items=(): OrderedDict((checked_key(key), value) for key, value in items),
    "collections.defaultdict": lambda factory=None: defaultdict(None),
    "argparse.Namespace": lambda: SimpleNamespace(),
    "_codecs.encode": _encode,
    "torch.Size": lambda sides=(): torch.Size(_only(tuple, sides)),
    "torch.device": lambda kind, *index: torch.device(_only(str, kind), *(_only(int, number) for number in index)),
    "torch.torch_version.TorchVersion": lambda text: str(_only(str, text)),
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
    "torch.Tensor": lambda: _only(Tensor, None),  # stands beside _rebuild_from_type_v2, and makes nothing alone
    "numpy.dtype": _DType,
    "numpy.ndarray": lambda: _only(bytes, None),  # stands beside _reconstruct, and makes nothing alone
}
for _core in ("core", "_core"):
    MAKERS[f"numpy.{_core}.multiarray._reconstruct"] = lambda *_: np.ndarray.__new__(_Array, (0,))
    MAKERS[f"numpy.{_core}.multiarray.scalar"] = _scalar
for _kind in ("datetime", "date", "time", "timedelta", "timezone"):
    MAKERS[f"datetime.{_kind}"] = getattr(datetime, _kind)
for _kind in ("Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath"):
    # a WindowsPath cannot be made on Linux
    MAKERS[f"pathlib.{_kind}"] = _paths(pathlib.PureWindowsPath if "Windows" in _kind else pathlib.Path)
TENSORS = {f"torch._utils._rebuild_tensor{version}" for version in ("", "_v2", "_v3")}


def resolve(name: Name, file: str, sizes: TensorSizes) -> Any:
    """The maker of what a pickle asks for, or a value that stands for itself.

    Raises:
        UserError: it is not allowed.
        ImportError: it is a layer that does not exist here.
    """
    full = str(name)
    if full in MAKERS:
        return MAKERS[full]
    if full in TENSORS:
        return sizes.tensor
    if full == "torch._tensor._rebuild_from_type_v2":
        return sizes.with_attributes
    if name.module in ("torch", "torch.cuda", "torch.storage") and name.name.lstrip("_") in STORAGES:
        return lambda *_: _only(Storage, None)  # stands in a persistent id, and makes nothing
    value = getattr(torch, name.name, None) if name.module == "torch" else None
    if isinstance(value, torch.dtype):
        return value
    kind = _layer(name)
    if kind is None:
        raise UserError(
            f"{file} holds {name.module}.{name.name}, which no checkpoint needs: it was refused before it could run. If "
            "you made this file yourself, give --trust-weights"
        )

    def make(*arguments: Any) -> Any:
        if arguments:
            raise UserError(
                f"{file} calls {full} with arguments, which no checkpoint does: it was refused before it could run"
            )
        return kind.__new__(kind)

    return make


def _layer(name: Name) -> Any:
    """The class of a layer, or of a quantizer's descriptor; None: it is neither."""
    place = (name.module, name.name)
    inside = any(name.module.startswith(part) if part[-1] == "." else name.module == part for part in LAYERS)
    if (not inside and place not in DESCRIPTORS) or name.name.lower() in NO_LAYERS or not name.name.isidentifier():
        return None
    try:
        value = getattr(importlib.import_module(name.module), name.name)
    except AttributeError as error:  # an AttributeError would read as damage
        raise ImportError(str(error)) from error
    if not isinstance(value, type) or value.__new__ is not object.__new__:
        return None
    return value if issubclass(value, nn.Module) or place in DESCRIPTORS else None


def storage_type(name: Any) -> torch.dtype:
    """The type of a storage's values.

    Raises:
        UnpicklingError: torch.save names no such storage.
    """
    dtype = STORAGES.get(name.name.lstrip("_")) if isinstance(name, Name) else None
    if dtype is None:
        raise UnpicklingError("a tensor is of an unknown type")
    return dtype


def build(value: Any, state: Any) -> None:
    """Give an object its state.

    Raises:
        UnpicklingError: a checkpoint has no such object with a state.
    """
    if isinstance(value, (_DType, _Array)):
        value.set(state)
    elif isinstance(value, OrderedDict) or isinstance(value, Tensor):
        return  # attributes (`_metadata` of a state dict) that nothing reads
    elif isinstance(value, nn.Module) and type(state) is dict:
        type(value).__setstate__(value, state)
    elif type(state) is dict and (
        isinstance(value, SimpleNamespace) or (type(value).__module__, type(value).__name__) in DESCRIPTORS
    ):
        vars(value).update(state)
    else:
        raise UnpicklingError(f"it has a {type(value).__name__} with a state")
