"""Pickles that would run code do not, whatever they ask for; checkpoints load with equal weights."""

from __future__ import annotations

import builtins
import datetime
import io
import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from quantization.errors import UserError
from quantization.quantizers import native
from quantization.upstream.safe_load import load_checkpoint, names_in


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


@pytest.fixture(params=["weights-only", "restricted"])
def loader(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Both ways: torch's own unpickler, and the one for torch before 2.6."""
    if request.param == "restricted":
        monkeypatch.setattr(torch, "__version__", "2.5.0")
    return load_checkpoint


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
def test_what_train_py_saves_loads(tmp_path: Path, loader: Any, legacy: bool) -> None:
    torch.manual_seed(0)
    expected = content()
    found = loader(saved(tmp_path, expected, _use_new_zipfile_serialization=not legacy))
    assert found.keys() == expected.keys() and found["opt"] == expected["opt"] and found["date"] == expected["date"]
    assert found["best_fitness"] == expected["best_fitness"] and found["scalar"] == expected["scalar"]
    for key, value in expected["model"].state_dict().items():
        assert torch.equal(found["model"].state_dict()[key], value)
    assert type(found["model"][3]) is native.TensorQuantizer


def test_trust_loads_anything(tmp_path: Path) -> None:
    file = saved(tmp_path, {"model": Call(len, "four")})
    assert load_checkpoint(file, trust=True) == {"model": 4}


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    file = tmp_path / "bomb.pt"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps({}, 2))
        archive.writestr("archive/data/0", bytes(2**28))
    with pytest.raises(UserError, match=r"would unpack to 256 MB"):
        load_checkpoint(file)


def test_names_are_read_without_importing(tmp_path: Path) -> None:
    stream = io.BytesIO()
    pickle.Pickler(stream, 2).dump({"a": 1})
    file = tmp_path / "a.pt"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02cno.such.module\nThing\n)R.")
    assert names_in(file) == [("no.such.module", "Thing")]


@pytest.mark.parametrize("data", [b"", b"text", b"PK\x03\x04", b"\x80\x02."])
def test_damaged_files_are_errors(tmp_path: Path, data: bytes) -> None:
    file = tmp_path / "a.pt"
    file.write_bytes(data)
    with pytest.raises((pickle.UnpicklingError, EOFError, ValueError, RuntimeError, zipfile.BadZipFile)):
        load_checkpoint(file)
