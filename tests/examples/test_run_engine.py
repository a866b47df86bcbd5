"""The example on a stand-in for TensorRT whose engine is a detector that never errs, in ONNX Runtime."""

from __future__ import annotations

import ctypes
import ctypes.util
import runpy
import sys
import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from support.drawn_data import NAMES, SIDE, Drawn
from support.fake_tensorrt import compile_cudart
from support.house import ROOT
from support.perfect_detector import perfect_detector


class OnnxContext:
    """An execution context whose device memory is the host's."""

    def __init__(self, file: str, dynamic: bool) -> None:
        import onnxruntime

        self._session = onnxruntime.InferenceSession(file)
        self._addresses: dict[str, int] = {}
        (output,) = self._session.get_outputs()
        batch = -1 if dynamic else 1
        self._shapes = {"images": (batch, 3, SIDE, SIDE), "outputs": (batch, *output.shape[1:])}

    def set_input_shape(self, name: str, shape: Any) -> bool:
        self._shapes = {name: (1, *sides[1:]) for name, sides in self._shapes.items()}
        return tuple(shape) == self._shapes[name]

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return self._shapes[name]

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return True

    def execute_async_v3(self, stream: int) -> bool:
        pointers = {name: ctypes.cast(a, ctypes.POINTER(ctypes.c_float)) for name, a in self._addresses.items()}
        arrays = {name: np.ctypeslib.as_array(pointer, self._shapes[name]) for name, pointer in pointers.items()}
        arrays["outputs"][:] = self._session.run(None, {"images": arrays["images"]})[0]
        return stream is not None


@pytest.mark.parametrize("dynamic", [False, True])
def test_boxes_are_those_that_were_drawn(
    dynamic: bool, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = compile_cudart(tmp_path_factory.getbasetemp())
    if library is None:
        pytest.skip("no C compiler")
    drawn = Drawn(tmp_path / "data")
    onnx = perfect_detector(tmp_path / "net.onnx", (SIDE, SIDE), len(NAMES))
    trt: Any = types.ModuleType("tensorrt")
    trt.Logger = type("Logger", (), {"WARNING": 1, "__init__": lambda self, level: None})

    def engine(plan: bytes) -> Any:
        assert plan == b"plan" and plugins
        context = OnnxContext(str(onnx), dynamic)
        return types.SimpleNamespace(
            create_execution_context=lambda: context, get_tensor_shape=context.get_tensor_shape
        )

    plugins: list[str] = []
    trt.init_libnvinfer_plugins = lambda log, namespace: plugins.append(namespace)
    trt.Runtime = lambda log: types.SimpleNamespace(deserialize_cuda_engine=engine)
    monkeypatch.setitem(sys.modules, "tensorrt", trt)
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: library if name == "cudart" else None)
    (tmp_path / "net.plan").write_bytes(b"plan")
    run = runpy.run_path(str(ROOT / "examples" / "run_engine.py"))["main"]
    for name, things in drawn.things.items():  # of 64 x 64 and of 64 x 48 pixels
        picture = tmp_path / f"{name}.jpg"
        found = run(str(tmp_path / "net.plan"), str(drawn.val / name), str(picture))
        expected = sorted([t.x, t.y, t.x + t.w, t.y + t.h, 1, t.label] for t in things)
        np.testing.assert_allclose(sorted(found.tolist()), expected, atol=0.01)
        assert picture.is_file()


def test_it_fits_on_a_screen_and_imports_nothing_of_the_package() -> None:
    text = (ROOT / "examples" / "run_engine.py").read_text(encoding="utf-8")
    assert "quantization" not in text
    body = text[text.index("def main") :].splitlines()
    assert len(body) <= 50
