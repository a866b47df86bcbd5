"""Options of a build: what each TensorRT version takes, trtexec's flags, shapes."""

from __future__ import annotations

import itertools

import pytest

from quantization.engine import trtexec, versions
from quantization.engine.options import BuildOptions, check_options, format_shapes, parse_shapes, resolve_shapes
from quantization.errors import UserError

FULL = {
    "shapes": {"images": (16, 3, 640, 640)},
    "workspace": 4096,
    "opt_level": 3,
    "tf32": False,
    "tactics": ("EDGE_MASK_CONVOLUTIONS", "JIT_CONVOLUTIONS"),
    "timing_cache": "t.cache",
    "calib_cache": "c.cache",
}

# What NVIDIA's release notes and migration guide say is gone, or not there yet
REJECTED = {
    (8, 5, 3): {"--builderOptimizationLevel", "--skipInference", "--stronglyTyped", "--noCudaGraph"},
    (8, 6, 1): {"--stronglyTyped", "--noCudaGraph"},
    (10, 3, 0): {"--workspace", "--buildOnly", "--batch", "--noCudaGraph"},
    (10, 16, 0): {"--workspace", "--buildOnly", "--batch", "--noCudaGraph"},
    (11, 1, 0): {
        "--workspace",
        "--buildOnly",
        "--batch",
        "--fp16",
        "--int8",
        "--calib",
        "--stronglyTyped",
        "--useCudaGraph",
        "--useSpinWait",
        "--noDataTransfers",
        "--separateProfileRun",
    },
}


def names(flags):
    return {flag.split("=")[0] for flag in flags}


@pytest.mark.parametrize("version", sorted(REJECTED))
def test_no_version_gets_a_flag_that_it_rejects(version):
    for mode, typed, graph in itertools.product(("fp16", "ptq", "qat"), (False, True), (False, True)):
        options = BuildOptions(mode, strongly_typed=typed, **FULL)
        if version < (8, 6, 0):
            options = BuildOptions(mode, strongly_typed=typed, **dict(FULL, opt_level=None))
        try:
            flags = trtexec.build_flags(options, version)
        except UserError:
            assert (mode == "ptq" and (typed or version >= (11, 0, 0))) or (typed and version < (10, 0, 0))
            continue
        timed = trtexec.TimingOptions(cuda_graph=graph)
        if graph or version >= (11, 0, 0):
            flags = flags + trtexec.timing_flags(timed, version)
        assert not names([*flags, versions.build_only_flag(version)]) & REJECTED[version]
        assert all(source not in " ".join(flags) for source in ("CUDNN", "CUBLAS")) or version < (11, 0, 0)


def test_lines_of_the_published_document():
    # its four builds, with --workspace=1024000 and --batch=1 written as newer versions need them
    common = ["--memPoolSize=workspace:1024000", "--profilingVerbosity=detailed"]
    for mode, precision in (("fp16", ["--fp16"]), ("ptq", ["--fp16", "--int8"]), ("qat", ["--fp16", "--int8"])):
        assert trtexec.build_flags(BuildOptions(mode, workspace=1024000), (8, 6, 0)) == precision + common
    assert trtexec.timing_flags(trtexec.TimingOptions(duration=10), (8, 6, 0)) == [
        "--warmUp=500",
        "--duration=10",
        "--useCudaGraph",
        "--useSpinWait",
        "--noDataTransfers",
        "--separateProfileRun",
    ]
    assert trtexec.timing_flags(trtexec.TimingOptions(10, cuda_graph=False, spin_wait=False), (11, 0, 0)) == [
        "--warmUp=500",
        "--duration=10",
        "--noCudaGraph",
        "--noSpinWait",
    ]


def test_strong_typing_drops_the_precision_flags():
    typed = BuildOptions("qat", strongly_typed=True)
    assert trtexec.build_flags(typed, (10, 3, 0)) == ["--stronglyTyped", "--profilingVerbosity=detailed"]
    assert trtexec.build_flags(BuildOptions("qat"), (11, 0, 0)) == ["--profilingVerbosity=detailed"]


def test_tactic_sources_left_out_are_switched_off():
    flags = trtexec.build_flags(BuildOptions("fp16", tactics=("JIT_CONVOLUTIONS",)), (8, 6, 0))
    assert "--tacticSources=-CUBLAS,-CUBLAS_LT,-CUDNN,-EDGE_MASK_CONVOLUTIONS,+JIT_CONVOLUTIONS" in flags


def test_shape_range_in_the_line():
    profile = {"images": ((1, 3, 8, 8), (4, 3, 8, 8), (16, 3, 8, 8))}
    assert trtexec.shape_flags(BuildOptions("fp16"), profile) == [
        "--minShapes=images:1x3x8x8",
        "--optShapes=images:4x3x8x8",
        "--maxShapes=images:16x3x8x8",
        "--shapes=images:4x3x8x8",
    ]
    assert trtexec.shape_flags(BuildOptions("fp16"), {}) == []


@pytest.mark.parametrize(
    "number, version",
    [
        (8502, (8, 5, 2)),
        (8600, (8, 6, 0)),
        (8601, (8, 6, 1)),
        (100001, (10, 0, 1)),
        (101600, (10, 16, 0)),
        (110100, (11, 1, 0)),
    ],
)
def test_version_number_of_trtexec(number, version):
    assert versions.parse_version_number(number) == version


@pytest.mark.parametrize("text", ["8.4.3", "7.2", "new", ""])
def test_versions_refused(text):
    with pytest.raises(UserError):
        versions.parse_version(text)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("8", (8, 5, 0)),
        ("8.x", (8, 5, 0)),
        ("8.6.1", (8, 6, 1)),
        ("10", (10, 0, 0)),
        ("10.3.x", (10, 3, 0)),
        ("10.16.1.11", (10, 16, 1)),
        ("11.x", (11, 0, 0)),
    ],
)
def test_versions_as_users_write_them(text, version):
    assert versions.asked_version(text, "--trt-version") == version


def test_version_compares_as_numbers():
    assert versions.parse_version("10.16.1.11") > versions.parse_version("10.3") > versions.parse_version("8.6.0")


@pytest.mark.parametrize(
    "changes, version, words",
    [
        ({"mode": "ptq"}, (11, 0, 0), "calibration"),
        ({"mode": "int4"}, (8, 6, 0), "mode 'int4'"),
        ({"opt_level": 3}, (8, 5, 3), "--opt-level"),
        ({"opt_level": 6}, (8, 6, 0), "0 to 5"),
        ({"strongly_typed": True}, (8, 6, 0), "--strongly-typed"),
        ({"mode": "ptq", "strongly_typed": True}, (10, 3, 0), "--strongly-typed"),
        ({"tactics": ("CUDNN",)}, (11, 0, 0), "CUDNN"),
        ({"tactics": ("JIT",)}, (8, 6, 0), "JIT"),
    ],
)
def test_options_that_a_version_cannot_do(changes, version, words):
    with pytest.raises(UserError, match=words):
        check_options(BuildOptions(**dict({"mode": "fp16"}, **changes)), version)


def test_shapes_round_trip_and_refusals():
    text = "images:16x3x640x640,model:0:1x2"  # an input's name may hold a colon
    assert parse_shapes(text, "--shapes") == {"images": (16, 3, 640, 640), "model:0": (1, 2)}
    assert format_shapes(parse_shapes(text, "--shapes")) == text
    for wrong in ("16x3x640x640", "images:", "images:1x3x", "images:-1x3", "images:1x3,images:1x3", ""):
        with pytest.raises(UserError, match="--shapes"):
            parse_shapes(wrong, "--shapes")


def test_resolved_shapes():
    dynamic = {"images": (-1, 3, 640, 640)}
    free = {"images": (-1, 3, -1, -1)}
    one, four = (1, 3, 640, 640), (4, 3, 640, 640)

    def resolve(inputs, **asked):
        return resolve_shapes(inputs, BuildOptions("fp16", **asked), "m.onnx")

    assert resolve({"images": one}) == {} == resolve({"images": one}, batch=1)
    assert resolve(dynamic) == {"images": (one, one, one)}
    assert resolve(dynamic, batch=4) == {"images": (four, four, four)}
    assert resolve(free, shapes={"images": four}, min_shapes={"images": one}) == {"images": (one, four, four)}
    for inputs, asked, words in (
        ({"images": one}, {"batch": 4}, "static"),
        ({"images": one}, {"shapes": {"images": four}}, "static"),
        (free, {"batch": 4}, "--shapes"),
        (dynamic, {"shapes": {"image": one}}, "no input image"),
        (dynamic, {"shapes": {"images": (1, 3, 320, 320)}}, "does not fit"),
        (dynamic, {"shapes": {"images": (1, 3, 640)}}, "does not fit"),
        (dynamic, {"shapes": {"images": four}, "max_shapes": {"images": one}}, "min <= opt <= max"),
        (dynamic, {"shapes": {"images": four}, "batch": 2}, "contradicts"),
    ):
        with pytest.raises(UserError, match=words):
            resolve(inputs, **asked)
