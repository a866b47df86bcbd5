"""The CUDA binding on a stand-in library, and engines on numpy images."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from quantization.engine import cuda
from quantization.engine.cuda import Cuda, CudaError
from quantization.engine.runtime import Engine
from quantization.errors import UserError
from support.fake_tensorrt import fake_cuda_fixture, fake_trt_fixture  # noqa: F401


def test_binding_passes_pointers_and_values(fake_cuda):
    fake_cuda()
    device = Cuda(spin_wait=True)
    assert device.device_name() == "Fake GPU" and device.compute_capability() == (9, 0)
    assert device.versions() == {"cuda_runtime": "12.9", "cuda_driver": "12.4"}
    sent = np.random.default_rng(0).random(1000)
    pointer, stream = device.malloc(sent.nbytes), device.stream_create()
    for arguments in ((), (stream,)):
        sent += 1
        (device.upload_async if arguments else device.upload)(pointer, sent, *arguments)
        received = np.zeros_like(sent)
        device.download_async(received, pointer, stream)
        device.stream_synchronize(stream)
        assert np.array_equal(sent, received)
    device.free(pointer)
    device.stream_destroy(stream)


def test_errors_carry_the_name_of_the_call_and_of_the_error(fake_cuda):
    fake_cuda()
    with pytest.raises(CudaError, match="cudaMalloc failed with cudaErrorMemoryAllocation"):
        Cuda().malloc(1 << 50)


def test_a_library_that_the_driver_refuses_is_passed_over(fake_cuda):
    fake_cuda(("NO_GPU",), ())
    assert Cuda().device_name() == "Fake GPU"
    fake_cuda(("NO_GPU",))
    with pytest.raises(CudaError, match="cudaErrorNoDevice"):
        Cuda()


def test_no_library_says_how_to_get_one(monkeypatch):
    monkeypatch.setattr(cuda, "library_candidates", lambda: iter(["libnothing-of-the-kind.so"]))
    with pytest.raises(CudaError, match="pip install"):
        Cuda()


def test_pip_packages_are_searched(tmp_path, monkeypatch):
    library = tmp_path / "nvidia" / "cu13" / "lib" / "libcudart.so.13"
    library.parent.mkdir(parents=True)
    library.touch()
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert str(library) in cuda.library_candidates()


@pytest.mark.parametrize("defines", [(), ("OLD",)])  # cudaGraphInstantiate of CUDA 11.3 and older
def test_graph_capture(fake_cuda, defines):
    fake_cuda(defines)
    device = Cuda()
    stream, runs = device.stream_create(), []
    graph = device.graph_capture(stream, lambda: runs.append(1))
    device.graph_launch(graph, stream)
    assert runs == [1]
    device.graph_destroy(graph)

    def refuse():
        raise UserError("no")

    with pytest.raises(UserError, match="no"):
        device.graph_capture(stream, refuse)
    device.graph_destroy(device.graph_capture(stream, lambda: None))  # the failed capture was ended


@pytest.mark.parametrize(
    "low, high",
    [
        ((1, 3, 4, 4), (1, 3, 4, 4)),
        ((3, 3, 4, 4), (3, 3, 4, 4)),
        ((1, 3, 4, 4), (4, 3, 8, 8)),
        ((2, 3, 4, 4), (4, 3, 4, 4)),
    ],
)
@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 9])
def test_engine_gives_each_image_its_own_output(fake_cuda, fake_trt, low, high, dynamic, count):
    fake_cuda()
    fake_trt(low, low, high, dynamic)
    images = np.random.default_rng(count).random((count, *high[1:]), dtype=np.float32)
    with Engine(b"plan", Cuda()) as engine:
        assert np.allclose(engine(images)[:, 0], [image.mean() for image in images], atol=1e-6)
        assert np.allclose(engine(images[::-1])[:, 0], [image.mean() for image in images[::-1]], atol=1e-6)


def test_engine_refusals(fake_cuda, fake_trt, tmp_path):
    fake_cuda()
    fake_trt(high=(4, 3, 8, 8))
    with pytest.raises(UserError, match="cannot load this plan"):
        Engine(b"bad", Cuda(), "a.plan")
    with pytest.raises(UserError, match="cannot be read"):
        Engine.load(str(tmp_path / "none.plan"), Cuda())
    with Engine(b"plan", Cuda()) as engine:
        for shape in ((1, 3, 9, 9), (1, 1, 4, 4), (3, 4, 4), (0, 3, 4, 4)):
            with pytest.raises(UserError, match="takes images"):
                engine(np.zeros(shape, np.float32))


def test_a_plan_with_a_plugin_in_it_loads(fake_cuda, fake_trt):
    """TensorRT knows its own plugins only once they are registered."""
    fake_cuda()
    fake_trt()
    with Engine(b"plan with a plugin", Cuda()) as engine:
        assert engine.shape == (1, 3, 4, 4)
