"""Checkpoints of strangers: a .pt is a pickle, and a pickle can run code. This one cannot.

    archive checked (nothing compressed, twice or outside) -> data.pkl read once -> ``unpickle.Machine``: every name is
    allowed here or refused -> makers of ours make tensors, arrays and containers, and layers without calling ``__init__``

Allowed are torch's layers and tensors, numpy's arrays and scalars, plain containers, and the layers of the upstreams, of
this bundle and of pytorch-quantization. Never a function that reads files or calls others. It is one way for every torch.
"""

from __future__ import annotations

import functools
import io
import struct
import tarfile
import zipfile
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Callable

import torch

from quantization.errors import UserError
from quantization.upstream.makers import Storage, TensorSizes, build, item_size, resolve, storage_type
from quantization.upstream.unpickle import Machine

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # files from before torch 1.6 begin with it
DEPTH, LAYERS = 100, 100_000  # of a model
LEGACY_PICKLES = 5  # magic number, protocol, system, object, keys of the storages


def load_checkpoint(file: Path, trust: bool = False) -> Any:
    """What a .pt holds, on the CPU.

    Args:
        file: an existing file.
        trust: unpickle whatever it holds, which can run code.

    Raises:
        UserError: it unpacks to far more than its size, or holds something that is not allowed.
        ImportError, AttributeError: it holds a layer that this upstream does not have.
        UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, OSError: it is no checkpoint.
    """
    if trust:
        return torch.load(str(file), map_location="cpu", weights_only=False)
    if zipfile.is_zipfile(file):
        return _load_archive(file)
    if tarfile.is_tarfile(file):
        raise UnpicklingError("it is a tar archive of torch 0.1: load and save it with a newer torch")
    return _load_stream(file)


def _load_archive(file: Path) -> Any:
    with zipfile.ZipFile(file) as archive:
        entries = _checked_entries(archive, file)
        pickles = [name for name in entries if name.rpartition("/")[2] == "data.pkl"]
        if len(pickles) != 1:
            raise UnpicklingError(f"the archive has {len(pickles)} data.pkl")
        folder = pickles[0][: -len("data.pkl")]
        order = archive.read(folder + "byteorder") if folder + "byteorder" in entries else b"little"
        if order != b"little":
            raise UnpicklingError("its numbers are big-endian: load and save it on a PC")
        storages: dict[str, Storage] = {}

        def storage(pid: Any) -> Storage:
            dtype, key, count = _parts(pid)
            if key not in storages:
                name = f"{folder}data/{key}"
                if name not in entries or count * item_size(dtype) > entries[name]:
                    raise UnpicklingError(f"the values of a tensor are missing ({name[:80]})")
                with archive.open(name) as stream:
                    storages[key] = _read(stream, count * item_size(dtype), dtype)
            return storages[key].viewed(dtype)

        return _machine(file, storage).load(io.BytesIO(archive.read(pickles[0])))


def _checked_entries(archive: zipfile.ZipFile, file: Path) -> dict[str, int]:
    """Names and sizes of an archive's entries.

    Raises:
        UserError: it would unpack to more than it has: torch.save stores everything once, and uncompressed.
    """
    infos = archive.infolist()
    entries = {info.filename: info.file_size for info in infos}
    whole = file.stat().st_size
    unpacked = sum(info.file_size for info in infos)
    if unpacked > whole or any(info.compress_type != zipfile.ZIP_STORED for info in infos):
        raise UserError(
            f"{file} of {whole / 2**20:.1f} MB would unpack to {unpacked / 2**20:.1f} MB: torch.save compresses "
            "nothing and writes no such file; get it from its source again"
        )
    if len(entries) != len(infos):
        raise UserError(f"{file} has two entries of one name: torch.save writes no such file; get it again")
    return entries


def _load_stream(file: Path) -> Any:
    """A file from before torch 1.6: pickles, then the storages."""
    data = file.read_bytes()
    stream = io.BytesIO(data)
    storages: dict[str, Storage] = {}
    left = [len(data)]

    def storage(pid: Any) -> Any:
        if isinstance(pid, tuple) and len(pid) == 4 and pid[0] == "module":
            return pid[1]  # a layer's class, with its source
        if isinstance(pid, tuple) and len(pid) == 6 and pid[5] is not None:
            raise UnpicklingError("it is of torch before 0.4: load and save it with a newer torch")
        dtype, key, count = _parts(pid)
        if key not in storages:
            left[0] -= count * item_size(dtype)
            if left[0] < 0:
                raise UnpicklingError("its tensors are larger than the file")
            storages[key] = Storage(torch.empty(count * item_size(dtype), dtype=torch.uint8), dtype)
        return storages[key].viewed(dtype)

    machine = _machine(file, storage)
    pickles = [machine.load(stream)]
    if pickles != [LEGACY_MAGIC]:
        raise UnpicklingError("it begins with no magic number of torch.save")
    pickles += [machine.load(stream) for _ in range(LEGACY_PICKLES - 1)]
    for key in pickles[-1]:
        (count,) = struct.unpack("<q", stream.read(8))
        wanted = storages[key]
        size = count * item_size(wanted.dtype)
        if size != wanted.data.numel():
            raise UnpicklingError("the values of a tensor are missing")
        wanted.fill(stream)
    return pickles[3]


def _machine(file: Path, storage: Callable[[Any], Any]) -> Machine:
    sizes = TensorSizes(file.stat().st_size)
    return Machine(functools.partial(resolve, file=str(file), sizes=sizes), storage, build)


def _parts(pid: Any) -> tuple[torch.dtype, str, int]:
    """Type, key and number of values of a storage."""
    if not isinstance(pid, tuple) or len(pid) not in (5, 6) or pid[0] != "storage":
        raise UnpicklingError("it has something beside tensors behind it")
    key, count = pid[2], pid[4]
    if type(key) is not str or type(count) is not int or count < 0:
        raise UnpicklingError("a tensor's values have no place")
    return storage_type(pid[1]), key, count


def _read(stream: Any, size: int, dtype: torch.dtype) -> Storage:
    result = Storage(torch.empty(size, dtype=torch.uint8), dtype)
    result.fill(stream)
    return result


def check_tree(model: torch.nn.Module, file: str) -> None:
    """Refuse a model whose layers would be visited endlessly: one that contains itself, or others again and again.

    Raises:
        UserError: it has more than ``LAYERS`` layers, each counted as often as it is used.
    """
    sizes: dict[int, int] = {}

    def size(layer: Any, depth: int) -> int:
        if depth > DEPTH or not isinstance(layer, torch.nn.Module):
            raise UserError(f"{file} holds a damaged model: its layers are no tree of layers; get it again")
        if id(layer) not in sizes:
            parts = vars(layer).get("_modules", {})
            if not isinstance(parts, dict):
                raise UserError(f"{file} holds a damaged model: a {type(layer).__name__} without layers; get it again")
            sizes[id(layer)] = 1 + sum(size(part, depth + 1) for part in parts.values() if part is not None)
        return sizes[id(layer)]

    if size(model, 0) > LAYERS:
        raise UserError(f"{file} holds a damaged model of more than {LAYERS} layers; get it again")
