"""Checkpoints of strangers: a .pt is a pickle, and a pickle can run code. This one cannot.

    zip sizes checked -> names that the pickle asks for, read without importing any -> each allowed, or refused by name
    -> torch's weights-only unpickler with exactly these; for torch before 2.6, and for files from before torch 1.6, which
       hold classes with their source, a restricted unpickler with the same list

Allowed are torch's layers and tensors, numpy's arrays and scalars, plain containers, and the layers of the upstreams, of
this bundle and of pytorch-quantization. Never a function that reads files or calls others.
"""

from __future__ import annotations

import importlib
import io
import pickle
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any, Callable

import numpy as np
import torch
from torch import nn

from quantization.errors import UserError

# torch.save stores tensors uncompressed; what unpacks to more than this times the file is no checkpoint of it
LARGEST_RATIO = 4
SMALL = 16 * 2**20  # bytes that are never too many
CLASSES = {
    "collections": {"OrderedDict", "defaultdict"},
    "builtins": {"set", "frozenset", "slice", "complex", "bytearray"},
    "datetime": {"datetime", "date", "time", "timedelta", "timezone"},
    "pathlib": {"Path", "PosixPath", "WindowsPath", "PurePath", "PurePosixPath", "PureWindowsPath"},
    "argparse": {"Namespace"},
    "numpy": {"ndarray", "dtype"},
    "_codecs": {"encode"},
    "torch": {"Tensor", "Size", "device", "dtype", "Generator"},
    "torch.nn.parameter": {"Parameter", "Buffer"},
    "torch.torch_version": {"TorchVersion"},
    "torch.storage": {"TypedStorage", "UntypedStorage", "_TypedStorage", "_UntypedStorage"},
    "torch.serialization": {"_get_layout"},
    "torch._utils": {
        "_rebuild_tensor",
        "_rebuild_tensor_v2",
        "_rebuild_tensor_v3",
        "_rebuild_parameter",
        "_rebuild_parameter_with_state",
        "_rebuild_device_tensor_from_numpy",
    },
    "pytorch_quantization.tensor_quant": {"QuantDescriptor", "ScaledQuantDescriptor"},
}
ARRAYS = {f"numpy.{core}.multiarray" for core in ("core", "_core")}
ARRAY_PARTS = {"_reconstruct", "scalar"}
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
# layers that open files or look for other weights when they are made
NO_LAYERS = {("models.common", "DetectMultiBackend"), ("models.common", "AutoShape")}
# fused layers hold a bound method of their own as ``forward``, which is pickled as getattr(layer, name)
FORWARDS = {
    "forward",
    "forward_fuse",
    "fuseforward",
    "fusevforward",
    "forward_once",
    "forward_chunk",
    "forward_chunk_split",
}
OLD_NAMES = {"__builtin__": "builtins", "copy_reg": "copyreg"}


class _Inert:
    """Stands in for whatever a pickle asks for while its names are read: takes everything, does nothing."""

    def __new__(cls, *arguments: Any, **keywords: Any) -> _Inert:
        return super().__new__(cls)

    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        pass

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def __call__(self, *arguments: Any, **keywords: Any) -> _Inert:
        return _Inert()

    def append(self, value: Any) -> None:
        """As a list's."""

    def extend(self, values: Any) -> None:
        """As a list's."""

    def add(self, value: Any) -> None:
        """As a set's."""


class _NameReader(pickle.Unpickler):
    """Collects what a pickle asks for, and imports none of it."""

    def __init__(self, file: Any) -> None:
        super().__init__(file, encoding="utf-8", errors="replace")
        self.names: dict[tuple[str, str], None] = {}

    def find_class(self, module: str, name: str) -> Any:
        """Remember the name; the stand-in takes its place."""
        self.names[(OLD_NAMES.get(module, module), name)] = None
        return _Inert

    def persistent_load(self, pid: Any) -> Any:
        """A tensor's storage, which is not read, or a class that an old file holds with its source."""
        is_class = isinstance(pid, tuple) and len(pid) > 1 and pid[0] == "module"
        return pid[1] if is_class else _Inert()


def load_checkpoint(file: Path, trust: bool = False) -> Any:
    """What a .pt holds, on the CPU.

    Args:
        file: an existing file.
        trust: unpickle whatever it holds, which can run code.

    Raises:
        UserError: it unpacks to far more than its size, or holds something that is not allowed.
        ModuleNotFoundError, AttributeError: it holds a layer that this upstream does not have.
        pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError: it is no checkpoint.
    """
    _check_sizes(file)
    if trust:
        return torch.load(str(file), map_location="cpu", weights_only=False)
    names = names_in(file)
    for module, name in names:
        if not _is_allowed(module, name):
            raise UserError(
                f"{file} holds {module}.{name}, which no checkpoint needs: it was refused before it could run. If you "
                "made this file yourself, give --trust-weights"
            )
    found = {f"{module}.{name}": _resolve(module, name) for module, name in names}
    if zipfile.is_zipfile(file) and tuple(int(part) for part in torch.__version__.split("+")[0].split(".")[:2]) >= (
        2,
        6,
    ):
        # allowed under the name in the file, which is not always where a class lives today
        extra: Any = [(value, name) for name, value in found.items() if not isinstance(value, torch.dtype)]
        extra += {type(np.dtype(kind)) for kind in np.sctypeDict.values()}  # made by numpy.dtype, never named
        with torch.serialization.safe_globals(extra):
            return torch.load(str(file), map_location="cpu", weights_only=True)
    return torch.load(str(file), map_location="cpu", weights_only=False, pickle_module=_restricted(names))


def names_in(file: Path) -> list[tuple[str, str]]:
    """Module and name of everything that the pickles in a .pt ask for; nothing is imported or run."""
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            entries = [name for name in archive.namelist() if name.endswith("data.pkl")]
            if not entries:
                raise ValueError("the archive has no data.pkl")
            streams: list[Any] = [io.BytesIO(archive.read(name)) for name in entries]
            return list(dict.fromkeys(name for stream in streams for name in _read(stream, 1)))
    with open(file, "rb") as stream:  # before torch 1.6: magic number, protocol, system, object, keys of the storages
        return _read(stream, 5)


def _read(stream: Any, count: int) -> list[tuple[str, str]]:
    """Names in ``count`` pickles, one behind the other."""
    names: dict[tuple[str, str], None] = {}
    for _ in range(count):
        reader = _NameReader(stream)
        try:
            reader.load()
        except (TypeError, AttributeError, IndexError, ImportError, MemoryError, OverflowError) as error:
            raise pickle.UnpicklingError(f"damaged pickle: {error}") from error
        names.update(reader.names)
    return list(names)


def _check_sizes(file: Path) -> None:
    """Refuse an archive that unpacks to far more than its size."""
    if not zipfile.is_zipfile(file):
        return
    with zipfile.ZipFile(file) as archive:
        unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > max(SMALL, LARGEST_RATIO * file.stat().st_size):
        raise UserError(
            f"{file} of {file.stat().st_size / 2**20:.0f} MB would unpack to {unpacked / 2**20:.0f} MB: torch.save "
            "writes no such file; get it from its source again"
        )


def _is_allowed(module: str, name: str) -> bool:
    """Whether a checkpoint may ask for this."""
    if (module, name) == ("builtins", "getattr"):
        return True  # `_bound_forward` takes its place
    if name in CLASSES.get(module, ()) or (module in ARRAYS and name in ARRAY_PARTS):
        return True
    if module == "numpy.dtypes" or (module == "torch" and name.endswith("Storage")):
        return "." not in name and name.isidentifier()
    if module == "torch" and isinstance(getattr(torch, name, None), torch.dtype):
        return True
    if (module, name) in NO_LAYERS or not any(
        module.startswith(prefix) if prefix.endswith(".") else module == prefix for prefix in LAYERS
    ):
        return False
    return _is_layer(_resolve(module, name))


def _bound_forward(layer: Any, name: str) -> Any:
    """getattr, for what a fused layer needs of it."""
    if not isinstance(layer, nn.Module) or name not in FORWARDS:
        raise pickle.UnpicklingError(f"{name} of a {type(layer).__name__} is not allowed")
    return getattr(layer, name)


def _is_layer(value: Any) -> bool:
    return isinstance(value, type) and (
        issubclass(value, nn.Module) or value.__module__ in ("quantization.quantizers.native",)
    )


def _resolve(module: str, name: str) -> Any:
    """The object of an allowed name; dotted names are refused.

    Raises:
        ModuleNotFoundError, AttributeError: it does not exist here.
    """
    if (module, name) == ("builtins", "getattr"):
        return _bound_forward
    if "." in name:
        raise UserError(f"the checkpoint asks for {module}.{name}, a part of something else, which is refused")
    return getattr(importlib.import_module(module), name)


def _restricted(names: list[tuple[str, str]]) -> ModuleType:
    """A pickle module whose unpickler finds these names and nothing else."""
    allowed = set(names)

    class Unpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            place = (OLD_NAMES.get(module, module), name)
            if place not in allowed:
                raise pickle.UnpicklingError(f"{module}.{name} is not allowed")
            return _resolve(*place)

    result = ModuleType("restricted_pickle")
    load: Callable[..., Any] = lambda file, **keywords: Unpickler(file, **keywords).load()  # noqa: E731
    result.__dict__.update(Unpickler=Unpickler, load=load, UnpicklingError=pickle.UnpicklingError)
    return result
