"""Plan files: what they depend on, and when one is built again."""

from __future__ import annotations

from pathlib import Path

from quantization.engine import plans
from quantization.engine.options import BuildOptions
from quantization.engine.plan_source import plan_key
from quantization.engine.specs import Calibration, EngineSpec


def test_plan_is_reused_until_something_it_was_built_from_changes(tmp_path):
    plan, cache = tmp_path / "a.plan", tmp_path / "c.cache"
    onnx = tmp_path / "m.onnx"
    onnx.write_bytes(b"model")
    key = {"onnx": plans.model_hash(str(onnx)), "shapes": {"images": (1, 3)}}  # JSON makes a list of the tuple

    def usable(key=key, cache=None):
        return plans.load_plan(str(plan), key, cache) is not None

    assert not usable()
    cache.write_bytes(b"scales")
    plans.save_plan(str(plan), b"engine", {"key": key, "calib_sha256": plans.file_hash(str(cache))})
    assert usable() and usable(cache=str(cache)) and usable(cache=str(tmp_path / "gone"))
    assert not usable(dict(key, shapes={"images": (2, 3)}))
    cache.write_bytes(b"others")
    assert not usable(cache=str(cache))
    (tmp_path / "m.onnx.data").write_bytes(b"weights")
    assert not usable(dict(key, onnx=plans.model_hash(str(onnx))))
    plan.write_bytes(b"engine, cut o")
    assert not usable()
    plan.write_bytes(b"engine")
    assert usable()
    Path(plans.record_path(str(plan))).write_text('{"key": ')
    assert not usable()


def test_plan_key_leaves_the_cache_files_out(tmp_path):
    onnx = tmp_path / "m.onnx"
    onnx.write_bytes(b"model")

    def key(mode="ptq", images=None, **options):
        spec = EngineSpec("a", BuildOptions(mode, **options), str(onnx))
        return plan_key(spec, "8.6.0", "GPU", images)

    images = Calibration("val", 100, lambda shape: [])
    assert key(timing_cache="a") == key(timing_cache="b") and key(workspace=1) != key(workspace=2)
    assert key(calib_cache="a") == key(calib_cache="b")
    assert key() != key(images=images) and key("fp16") == key("fp16", images)
    assert key(calib_cache="c") == key(calib_cache="c", images=images)  # the cache's content is compared instead
