"""Building engines: calibration, the checks on a parsed network, the builder's config."""

from __future__ import annotations

import dataclasses
import types

import numpy as np
import pytest

from quantization.engine import build
from quantization.engine.calibrator import CalibrationFeed, entropy_calibrator
from quantization.engine.options import BuildOptions
from quantization.engine.timing_cache import TimingCache
from quantization.errors import UserError
from support import fake_tensorrt
from support.fake_tensorrt import fake_trt_fixture  # noqa: F401

FULL = {
    "shapes": {"images": (16, 3, 640, 640)},
    "workspace": 4096,
    "opt_level": 3,
    "tf32": False,
    "tactics": ("EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS"),
    "timing_cache": "t.cache",
    "calib_cache": "c.cache",
}


def test_calibration_feed_fills_the_last_batch_with_its_own_images():
    images = np.random.default_rng(0).random((5, 3, 2, 2), dtype=np.float32)
    feed = CalibrationFeed(iter([images[:3], images[3:]]), (3, 3, 2, 2), None)
    first, last = feed.next_batch(), feed.next_batch()
    assert np.array_equal(first, images[:3]) and np.array_equal(last, images[[3, 4, 3]])
    assert last.flags.c_contiguous and last.dtype == np.float32 and last.shape == (3, 3, 2, 2)
    assert feed.next_batch() is None and feed.images == 5


def test_calibration_feed_refusals(tmp_path):
    cache = tmp_path / "c.cache"
    with pytest.raises(UserError, match="--calib-images"):
        CalibrationFeed(None, (1, 3, 2, 2), str(cache))
    with pytest.raises(UserError, match="no images"):
        CalibrationFeed([], (1, 3, 2, 2), None).next_batch()
    with pytest.raises(UserError, match="does not fit"):
        CalibrationFeed([np.zeros((1, 3, 4, 4), np.float32)], (1, 3, 2, 2), None).next_batch()
    cache.write_bytes(b"TRT-1-x")
    with pytest.raises(UserError, match="not accepted"):  # TensorRT asks for images although the cache was there
        CalibrationFeed(None, (1, 3, 2, 2), str(cache)).next_batch()


def test_calibration_cache_is_written_whole_and_read_back(tmp_path):
    cache = tmp_path / "sub" / "c.cache"
    feed = CalibrationFeed([np.zeros((1, 3, 2, 2), np.float32)], (1, 3, 2, 2), str(cache))
    assert feed.read_cache() is None
    feed.write_cache(b"TRT-8600-EntropyCalibration2\nimages: 3c010a14\n")
    assert feed.read_cache() == b"TRT-8600-EntropyCalibration2\nimages: 3c010a14\n"
    assert [item.name for item in cache.parent.iterdir()] == ["c.cache"]  # no temporary file left


def test_build_of_a_dynamic_ptq_engine(fake_trt, tmp_path):
    trt = fake_trt()
    onnx, cache = tmp_path / "m.onnx", tmp_path / "c.cache"
    onnx.write_bytes(b"x")
    cuda = types.SimpleNamespace(malloc=lambda size: 64, free=lambda pointer: None, upload=lambda pointer, array: None)
    options = BuildOptions(
        "ptq", shapes={"images": (2, 3, 4, 4)}, max_shapes={"images": (8, 3, 4, 4)}, calib_cache=str(cache)
    )
    asked, announced = [], []

    def images(shape):
        asked.append(shape)
        return [np.zeros((2, 3, 4, 4), np.float32)] * 3

    built = build.build_engine(str(onnx), options, cuda, images, announced.append)
    profile = {"images": ((2, 3, 4, 4), (2, 3, 4, 4), (8, 3, 4, 4))}
    assert built.plan == b"plan of 3 batches" and built.calibration_images == 6
    assert built.profile == profile == announced[0] == trt.last_config.profiles[0]
    assert asked == [(2, 3, 4, 4)] and trt.last_config.calibration_profile == {"images": ((2, 3, 4, 4),) * 3}
    again = build.build_engine(str(onnx), options, cuda, None)
    assert again.plan == b"plan of cache scales" and again.calibration_images == 0
    with pytest.raises(UserError, match="calibrate"):
        build.build_engine(str(onnx), dataclasses.replace(options, calib_cache=None), cuda, None)
    onnx.write_bytes(b"")
    with pytest.raises(UserError, match="no opset at node 7"):
        build.build_engine(str(onnx), options, cuda, None)
    with pytest.raises(UserError, match="does not exist"):
        build.build_engine(str(onnx) + "x", options, cuda, None)


def test_an_error_in_a_calibration_callback_reaches_the_caller(fake_trt, tmp_path):
    fake_trt()
    freed = []
    cuda = types.SimpleNamespace(malloc=lambda size: size, free=freed.append, upload=lambda pointer, array: None)
    good, bad = np.zeros((1, 3, 2, 2), np.float32), np.zeros((1, 3, 9, 9), np.float32)
    cache = tmp_path / "c.cache"
    calibrator = entropy_calibrator(CalibrationFeed([good, bad], (1, 3, 2, 2), str(cache)), cuda)
    assert calibrator.get_batch(["images"]) == [48]  # 12 floats
    assert calibrator.get_batch(["images"]) is None
    calibrator.write_calibration_cache(memoryview(b"half of the images"))
    assert not cache.exists()
    with pytest.raises(UserError, match="does not fit"):
        calibrator.finish()
    assert freed == [48]


def network(*layer_types, half=False):
    kind = fake_tensorrt.DataType.HALF if half else fake_tensorrt.DataType.FLOAT
    layers = [
        types.SimpleNamespace(
            type=getattr(fake_tensorrt.LayerType, name),
            num_outputs=1,
            get_output=lambda index: types.SimpleNamespace(dtype=kind),
        )
        for name in layer_types
    ]
    return types.SimpleNamespace(num_layers=len(layers), get_layer=layers.__getitem__)


def test_network_must_fit_the_mode(capsys):
    plain, quantized = network("CONVOLUTION"), network("CONVOLUTION", "DEQUANTIZE")
    for mode, good, bad in (("fp16", plain, quantized), ("ptq", plain, quantized), ("qat", quantized, plain)):
        build.check_network(fake_tensorrt, good, mode, False, "m.onnx")
        with pytest.raises(UserError, match="Q/DQ"):
            build.check_network(fake_tensorrt, bad, mode, False, "m.onnx")
    with pytest.raises(UserError, match="fp16-remainder"):
        build.check_network(fake_tensorrt, plain, "fp16", True, "m.onnx")
    build.check_network(fake_tensorrt, network("CONVOLUTION", half=True), "fp16", True, "m.onnx")
    assert capsys.readouterr().out == ""
    build.check_network(fake_tensorrt, quantized, "qat", True, "m.onnx")
    assert "FP32" in capsys.readouterr().out


class Config:
    """Keeps what is set; TF32 is on in a new config, as in TensorRT's."""

    def __init__(self):
        self.flags, self.pools, self.tactics = {"TF32"}, {}, None

    def set_flag(self, flag):
        self.flags.add(flag.name)

    def clear_flag(self, flag):
        self.flags.discard(flag.name)

    def set_memory_pool_limit(self, pool, size):
        self.pools[pool] = size

    def set_tactic_sources(self, mask):
        self.tactics = mask
        return mask != 0


@pytest.mark.parametrize(
    "mode, typed, flags",
    [
        ("fp16", False, {"FP16", "TF32"}),
        ("ptq", False, {"FP16", "INT8", "TF32"}),
        ("qat", False, {"FP16", "INT8", "TF32"}),
        ("qat", True, {"TF32"}),
    ],
)
def test_config_of_each_mode(mode, typed, flags, fake_trt):
    trt = fake_trt()
    trt.ProfilingVerbosity = types.SimpleNamespace(DETAILED="detailed")
    trt.MemoryPoolType = types.SimpleNamespace(WORKSPACE="workspace")
    config = Config()
    build.configure(trt, config, BuildOptions(mode), typed)
    assert (config.flags, config.pools, config.tactics) == (flags, {}, None)
    assert config.profiling_verbosity == "detailed" and not hasattr(config, "builder_optimization_level")
    build.configure(trt, config, BuildOptions(mode, **FULL), typed)
    assert config.flags == flags - {"TF32"} and config.builder_optimization_level == 3
    assert config.pools == {"workspace": 4096 * 1024 * 1024} and config.tactics == 0b11000
    with pytest.raises(UserError, match="--tactics"):
        build.configure(trt, config, BuildOptions(mode, tactics=()), typed)


def test_builds_share_a_timing_cache_and_a_foreign_one_is_replaced(tmp_path, capsys):
    path = tmp_path / "timings"
    shared = TimingCache(str(path))
    configs = [fake_tensorrt.BuilderConfig() for _ in range(3)]
    shared.save()
    assert not path.exists()  # nothing was timed yet
    for config in configs[:2]:
        shared.attach(config)
    assert configs[0].timing_cache is configs[1].timing_cache
    configs[0].timing_cache.content = b"timings"
    shared.save()
    assert path.read_bytes() == b"timings" and not capsys.readouterr().out
    TimingCache(str(path)).attach(configs[2])
    assert configs[2].timing_cache.content == b"timings"
    path.write_bytes(b"of another GPU")
    TimingCache(str(path)).attach(configs[2])
    assert configs[2].timing_cache.content == b"" and str(path) in capsys.readouterr().out
