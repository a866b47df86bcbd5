"""Pickles that would run code do not, whatever they ask for; checkpoints load with equal weights."""

from __future__ import annotations

import builtins
import datetime
import os
import pickle
import resource
import sys
import tarfile
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from quantization.errors import UserError
from quantization.quantizers import native
from quantization.upstream import checkpoint
from quantization.upstream.safe_load import check_tree, load_checkpoint


class Call:
    """Pickles as a call of any function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> Any:
        return self.call


def saved(folder: Path, content: Any, **keywords: Any) -> Path:
    file = folder / "weights.pt"
    torch.save(content, str(file), **keywords)
    return file


def exploits(marker: str) -> dict[str, Any]:
    command = f"open({marker!r}, 'w')"
    return {
        "posix.system": Call(os.system, f"touch {marker}"),
        "builtins.eval": Call(eval, command),
        "builtins.exec": {"model": {"deep": [Call(exec, command)]}},
        "builtins.open": Call(builtins.open, marker, "w"),
        "torch.storage._load_from_bytes": Call(torch.storage._load_from_bytes, pickle.dumps(Call(eval, command))),
        "_pickle.loads": Call(pickle.loads, pickle.dumps(Call(eval, command))),
        "numpy.load": Call(np.load, marker),
        "builtins.__import__": Call(__import__, "antigravity"),
        "torch.hub.load": Call(torch.hub.load, "a/b", "c"),
    }


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("name", sorted(exploits("")))
def test_a_pickle_that_would_run_code_is_refused_by_name(
    tmp_path: Path, name: str, protocol: int, legacy: bool
) -> None:
    marker = tmp_path / "ran"
    file = saved(
        tmp_path,
        {"model": exploits(str(marker))[name]},
        pickle_protocol=protocol,
        _use_new_zipfile_serialization=not legacy,
    )
    with pytest.raises(UserError, match="--trust-weights") as caught:
        load_checkpoint(file)
    assert f".{name.split('.')[-1]}, which no checkpoint needs" in str(caught.value) and str(file) in str(caught.value)
    assert not marker.exists()


def test_getattr_serves_layers_alone(tmp_path: Path) -> None:
    """A fused layer's ``forward`` is pickled as getattr(layer, name); nothing else is had by it."""
    layer = nn.Conv2d(3, 4, 1)
    layer.forward = layer.forward  # type: ignore[method-assign]
    assert load_checkpoint(saved(tmp_path, {"model": layer}))["model"].forward.__name__ == "forward"
    for target, name in ((layer, "__class__"), ("", "format"), (layer, "__init__")):
        with pytest.raises(pickle.UnpicklingError, match="is not allowed"):
            load_checkpoint(saved(tmp_path, {"model": Call(getattr, target, name)}))


def content() -> dict[str, Any]:
    quantizer = native.TensorQuantizer(native.QuantDescriptor(axis=0))
    quantizer.amax = torch.rand(4, 1, 1, 1)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.SiLU(inplace=True), quantizer, nn.Upsample(None, 2))
    return {
        "model": model.half(),
        "epoch": 3,
        "best_fitness": np.array([0.5]),
        "scalar": np.float64(0.25),
        "optimizer": torch.optim.SGD(model.parameters(), 0.1, 0.9).state_dict(),
        "date": datetime.datetime(2022, 11, 22),
        "stride": torch.tensor([8.0, 16.0, 32.0]),
        "opt": {"weights": Path("yolov5n.pt"), "hyp": {"lr0": 0.01}},
    }


@pytest.mark.parametrize("legacy", [False, True])
def test_what_train_py_saves_loads(tmp_path: Path, legacy: bool) -> None:
    torch.manual_seed(0)
    expected = content()
    found = load_checkpoint(saved(tmp_path, expected, _use_new_zipfile_serialization=not legacy))
    assert found.keys() == expected.keys() and found["opt"] == expected["opt"] and found["date"] == expected["date"]
    assert found["best_fitness"] == expected["best_fitness"] and found["scalar"] == expected["scalar"]
    for key, value in expected["model"].state_dict().items():
        assert torch.equal(found["model"].state_dict()[key], value)
    assert type(found["model"][3]) is native.TensorQuantizer


def test_trust_loads_anything(tmp_path: Path) -> None:
    file = saved(tmp_path, {"model": Call(len, "four")})
    assert load_checkpoint(file, trust=True) == {"model": 4}


def archive_of(file: Path, *entries: tuple[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return file


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    """Half a MB that unpacks to 512 MB takes no memory to speak of."""
    file = tmp_path / "bomb.pt"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}, 2))
        with archive.open("archive/data/0", "w", force_zip64=True) as entry:
            for _ in range(512):
                entry.write(bytes(2**20))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(UserError, match=r"would unpack to 512\.0 MB"):
        load_checkpoint(file)
    assert file.stat().st_size < 2**20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 * 2**10  # KiB


def test_two_entries_of_one_name_are_refused(tmp_path: Path) -> None:
    """One reader would take the first, another the last."""
    harmless, other = pickle.dumps({}, 2), pickle.dumps(Call(os.getcwd), 2)
    with pytest.warns(UserWarning, match="Duplicate name"):
        file = archive_of(tmp_path / "a.pt", ("a/data.pkl", harmless), ("a/data.pkl", other))
    with pytest.raises(UserError, match="two entries of one name"):
        load_checkpoint(file)
    file = archive_of(tmp_path / "b.pt", ("a/data.pkl", harmless), ("a/b/data.pkl", other))
    with pytest.raises(pickle.UnpicklingError, match=r"2 data\.pkl"):
        load_checkpoint(file)


def test_no_layer_is_called(tmp_path: Path) -> None:
    """A layer's ``__init__`` may evaluate strings, as upstream's Model does; torch's own unpickler would call it."""
    called = Call(nn.Linear, 3, 4)
    with pytest.raises(UserError, match=r"calls torch\.nn\.modules\.linear\.Linear with arguments"):
        load_checkpoint(saved(tmp_path, {"model": called}))
    with pytest.raises(pickle.UnpicklingError, match="it calls a ReLU"):
        load_checkpoint(archive_of(tmp_path / "a.pt", ("a/data.pkl", CALLED_LAYER)))


NEW_LAYER = b"ctorch.nn.modules.activation\nReLU\n)\x81"
CALLED_LAYER = b"\x80\x02" + NEW_LAYER + b"X\x01\0\0\0a\x85R."
GLOBAL = b"cargparse\nNamespace\n"
HOSTILE = {
    "state of a class": (b"\x80\x02" + GLOBAL + b"}X\x01\0\0\0aK\x01sb.", "a Name with a state"),
    "slots of a class": (b"\x80\x02" + GLOBAL + b"N}X\x01\0\0\0aK\x01s\x86b.", "a Name with a state"),
    "items of a class": (b"\x80\x02" + GLOBAL + b"K\x01K\x02s.", "items into a Name"),
    "append to a layer": (b"\x80\x02" + NEW_LAYER + b"K\x01a.", "items into a ReLU"),
    "a number is called": (b"\x80\x02K\x01)R.", "calls a int"),
    "huge memo": (b"\x80\x02Nr\xff\xff\xff\xff.", ""),
    "long bytes": (b"\x80\x04\x8e" + (2**60).to_bytes(8, "little") + b".", "damaged pickle"),
    "long integer": (b"\x80\x02\x8b\xff\xff\xff\x7f.", "damaged pickle"),
    "text opcodes": (b"cos\nsystem\n(S'true'\ntR.", "holds os.system"),
    "instance": (b"(S'true'\nios\nsystem\n.", "opcode STRING"),
    "extension": (b"\x80\x02\x82\x01.", "opcode EXT1"),
    "name with dots": (b"\x80\x04\x8c\x05torch\x8c\x08hub.load\x93.", "holds torch.hub.load"),
    "name of no text": (b"\x80\x02K\x01K\x02\x93.", "without a name"),
    "empty module": (b"\x80\x04\x8c\0\x8c\x06system\x93.", "no checkpoint needs"),
    "persistent id": (b"\x80\x02X\x01\0\0\0aQ.", "beside tensors"),
    "storage without key": (b"\x80\x02(X\x07\0\0\0storagectorch\nFloatStorage\nNNK\x01tQ.", "no place"),
    "bytes of a number": (b"\x80\x02cbuiltins\nbytearray\nJ\0\0\0\x7f\x85R.", "bytes is expected"),
    "a codec": (b"\x80\x02c_codecs\nencode\nX\x01\0\0\0aX\x03\0\0\0zip\x86R.", "encodes"),
    "type of an array": (b"\x80\x02cnumpy\ndtype\nX\x0a\0\0\0V100000000\x85R.", "unknown type"),
    "dots of numpy": (b"\x80\x02cnumpy\nload\n.", "holds numpy.load"),
    "no end": (b"\x80\x02N", "damaged pickle"),
    "stack is empty": (b"\x80\x02a.", "values are missing"),
    "mark as a value": (b"\x80\x02](a.", "values are missing"),
}


@pytest.mark.parametrize("name", sorted(HOSTILE))
def test_a_hostile_pickle_is_refused(tmp_path: Path, name: str) -> None:
    data, message = HOSTILE[name]
    file = archive_of(tmp_path / "a.pt", ("a/data.pkl", data))
    if name == "huge memo":  # the place of a memo costs nothing
        assert load_checkpoint(file) is None
        return
    with pytest.raises((UserError, pickle.UnpicklingError), match=message):
        load_checkpoint(file)


def laughs(depth: int, last: bytes) -> bytes:
    """A tuple of two of a tuple of two ...: its hash would take 2 ** depth steps."""
    return b"\x80\x02})" + b"q\0h\0\x86" * depth + last


def test_nested_tuples_are_no_keys(tmp_path: Path) -> None:
    with pytest.raises(pickle.UnpicklingError, match="a tuple as a key"):
        load_checkpoint(archive_of(tmp_path / "a.pt", ("a/data.pkl", laughs(60, b"K\x01s."))))
    deep = archive_of(tmp_path / "b.pt", ("a/data.pkl", b"\x80\x02" + b"]" * 10**5 + b"a" * (10**5 - 1) + b"."))
    assert len(load_checkpoint(deep)) == 1


def typed_storage(tensor: torch.Tensor) -> Any:
    """A tensor's storage as it is pickled, by any torch."""
    return tensor._typed_storage() if hasattr(tensor, "_typed_storage") else tensor.storage()


@pytest.mark.parametrize("size, stride", [((2**40,), (0,)), ((2**33,), (1,)), ((4,), (2**40,)), ((-1,), (1,))])
def test_a_tensor_larger_than_its_values_is_refused(tmp_path: Path, size: Any, stride: Any) -> None:
    storage = typed_storage(torch.rand(4))
    call = Call(torch._utils._rebuild_tensor_v2, storage, 0, size, stride, False, OrderedDict())
    with pytest.raises(pickle.UnpicklingError):
        load_checkpoint(saved(tmp_path, {"model": call}))


def test_expanded_tensors_load(tmp_path: Path) -> None:
    """As anchors are saved."""
    grid = torch.rand(1, 3, 1, 1, 2).expand(1, 3, 80, 80, 2)
    assert torch.equal(load_checkpoint(saved(tmp_path, {"grid": grid}))["grid"], grid)


def noted() -> nn.Module:
    """A layer whose tensors have Python attributes, as torch's compiler and ``nn.Buffer`` leave them."""
    layer = nn.BatchNorm2d(4)
    for tensor in (*layer.parameters(), *layer.buffers()):
        tensor._dynamo_static_input_type = "guarded"  # type: ignore[attr-defined]
    return layer


@pytest.mark.parametrize("legacy", [False, True])
def test_attributes_of_tensors_are_dropped(tmp_path: Path, legacy: bool) -> None:
    layer = noted()
    layer.note = layer.running_mean  # one tensor, seen twice
    found = load_checkpoint(saved(tmp_path, {"model": layer}, _use_new_zipfile_serialization=not legacy))["model"]
    for key, value in layer.state_dict().items():
        assert torch.equal(found.state_dict()[key], value)
    assert type(found.running_mean) is torch.Tensor and type(found.weight) is nn.Parameter
    assert not any(vars(tensor) for tensor in (*found.parameters(), *found.buffers()))
    assert found.note is found.running_mean


@pytest.mark.parametrize(
    "maker, kind", [(os.getcwd, torch.Tensor), (torch._utils._rebuild_tensor_v2, nn.Conv2d), ("a", "b")]
)
def test_attributes_serve_plain_tensors_alone(tmp_path: Path, maker: Any, kind: Any) -> None:
    arguments = (typed_storage(torch.rand(4)), 0, (4,), (1,), False, OrderedDict())
    call = Call(torch._tensor._rebuild_from_type_v2, maker, kind, arguments, {})
    with pytest.raises((UserError, pickle.UnpicklingError), match=r"no checkpoint needs|a tensor is a"):
        load_checkpoint(saved(tmp_path, {"model": call}))


def test_what_is_saved_loads_whatever_its_tensors_carry(tmp_path: Path) -> None:
    layer = noted()
    layer.running_mean.owner = Call(os.getcwd)  # type: ignore[union-attr]
    checkpoint.save(str(tmp_path / "a.pt"), layer, {})
    found = load_checkpoint(tmp_path / "a.pt")["model"]
    assert torch.equal(found.running_var, layer.running_var) and hasattr(layer.running_mean, "owner")


def test_values_that_are_missing_are_damage(tmp_path: Path) -> None:
    file = saved(tmp_path, {"a": torch.rand(100)})
    with zipfile.ZipFile(file) as archive:
        entries = [(name, archive.read(name)) for name in archive.namelist()]
    cut = [(name, data[:-1] if name.endswith("data/0") else data) for name, data in entries]
    with pytest.raises(pickle.UnpicklingError, match="values of a tensor are missing"):
        load_checkpoint(archive_of(tmp_path / "cut.pt", *cut))


def test_arrays_of_every_kind_load(tmp_path: Path) -> None:
    arrays = [np.arange(6.0).reshape(2, 3).T, np.array([1, 2], ">i4"), np.array(["a", "bc"]), np.zeros((0, 5), "f2")]
    arrays += [np.array([True]), np.array([{"a": 1}, None], dtype=object), np.asfortranarray(np.ones((2, 3), np.uint8))]
    for expected, found in zip(arrays, load_checkpoint(saved(tmp_path, {"a": arrays}))["a"]):
        assert found.dtype == pickle.loads(pickle.dumps(expected)).dtype and np.array_equal(found, expected)


def test_a_model_that_contains_itself_is_refused() -> None:
    model = nn.Sequential(nn.ReLU())
    inner: nn.Module = model
    for _ in range(60):  # 2 ** 60 layers to visit
        inner = nn.Sequential(inner, inner)
    with pytest.raises(UserError, match="more than 100000 layers"):
        check_tree(inner, "a.pt")
    check_tree(nn.Sequential(model, model), "a.pt")
    model.add_module("self", model)
    with pytest.raises(UserError, match="no tree of layers"):
        check_tree(model, "a.pt")


def test_names_are_read_without_importing(tmp_path: Path) -> None:
    file = archive_of(tmp_path / "a.pt", ("a/data.pkl", b"\x80\x02cantigravity\nThing\n)R."))
    with pytest.raises(UserError, match=r"antigravity\.Thing"):
        load_checkpoint(file)
    assert "antigravity" not in sys.modules


def test_a_tar_archive_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "a.pt"
    with tarfile.open(file, "w") as archive:
        archive.addfile(tarfile.TarInfo("storages"))
    with pytest.raises(pickle.UnpicklingError, match=r"torch 0\.1"):
        load_checkpoint(file)


@pytest.mark.parametrize("data", [b"", b"text", b"PK\x03\x04", b"\x80\x02."])
def test_damaged_files_are_errors(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "a.pt"
    file.write_bytes(data)
    with pytest.raises((pickle.UnpicklingError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile)):
        load_checkpoint(file)
