"""A cross-section of upstream's nets, each built in a checkout: groups, calibration, export, and blocks with a sum.

The groups are those of the table in the design notes; ``benchmarks/architectures.py`` runs all nets.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable

import pytest

from quantization.options import PlacementOptions
from support.workflow import SUPPORT, run_task

NETS = SUPPORT / "nets"
TASKS = SUPPORT / "architecture_tasks.py"


@pytest.fixture(scope="module")
def yolov5(checkouts: Callable[[str], Path]) -> Path:
    return checkouts("yolov5")


@pytest.fixture(scope="module")
def yolov7(checkouts: Callable[[str], Path]) -> Path:
    return checkouts("yolov7")


def run(task: str, checkout: Path, *arguments: object) -> Any:
    return run_task(checkout, task, checkout.name, *arguments, program=TASKS)


def short(names: list[str]) -> set[str]:
    """Layers without what all have: ``model.`` in front, ``.conv`` and RepConv's ``.rbr_reparam`` behind."""
    return {name[len("model.") :].replace(".conv", "").replace(".rbr_reparam", "") for name in names}


def table(text: str) -> set[frozenset]:
    """Groups written as ``{4,5} {51.cv1,51.cv2}``."""
    return {frozenset(group.strip("{}").split(",")) for group in text.split()}


YOLOV7 = table("""
    {4,5} {17,18} {30,31} {43,44} {51.cv1,51.cv2} {6,8,11} {19,21,24} {32,34,37} {45,47,50} {58,59,60,61,63}
    {70,71,72,73,75} {83,84,85,86,88} {96,97,98,99,101} {13,14} {26,27,66} {39,40,54} {77,78,102} {90,91,103}
    {52,94,95} {64,81,82} {56,57,53} {68,69,65}""")
YOLOV7_TINY = table("""
    {2,3} {4,5,7} {9,10} {11,12,14} {16,17,50} {18,19,21} {23,24,40} {25,26,28} {29,30} {38,68,69} {44,45,47}
    {48,60,61} {54,55,57} {58,74} {62,63,65} {66,75} {70,71,73} {42,43,39} {52,53,49}""")
# 17 also feeds the head in INT8; the seven shortcuts: the sum's first operand reads what the chain's next convolution reads
YOLOV5S = table("""
    {2.cv1,2.cv2} {4.cv1,4.cv2} {6.cv1,6.cv2} {8.cv1,8.cv2} {5,17.cv1,17.cv2,20.cv1,20.cv2,15}
    {7,13.cv1,13.cv2,23.cv1,23.cv2,11}
    {18,24.m.0} {2.m.0.cv1,2.m.0.addop} {4.m.0.cv1,4.m.0.addop} {4.m.1.cv1,4.m.1.addop}
    {6.m.0.cv1,6.m.0.addop} {6.m.1.cv1,6.m.1.addop} {6.m.2.cv1,6.m.2.addop} {8.m.0.cv1,8.m.0.addop}""")
PUBLISHED_PAIRS = """
    6-11 8-11 14-13 19-24 21-24 27-26 32-37 34-37 40-39 45-50 47-50 58-63 59-63 60-63 61-63 70-75 71-75 72-75 73-75
    78-77 64-81 83-88 84-88 85-88 86-88 91-90 52-94 96-101 97-101 98-101 99-101"""


def shared(groups: list[list[str]]) -> set[frozenset]:
    return {frozenset(short(group)) for group in groups if len(group) > 1}


def test_groups_of_yolov7(yolov7: Path) -> None:
    nets = ("yolov7.yaml@torchscript", "yolov7-tiny.yaml@torchscript", "yolov7-tiny.yaml@dynamo")
    full, tiny, tiny_by_dynamo = run("groups", yolov7, *(f"cfg/training/{net}" for net in nets))
    assert shared(full) == YOLOV7
    assert shared(tiny) == shared(tiny_by_dynamo) == YOLOV7_TINY
    pairs = [set(pair.split("-")) for pair in PUBLISHED_PAIRS.split()]
    assert len(pairs) == 31
    assert all(any(pair <= group for group in shared(full)) for pair in pairs)


def test_groups_of_yolov5s(yolov5: Path) -> None:
    by_torchscript, by_dynamo = run("groups", yolov5, "models/yolov5s.yaml@torchscript", "models/yolov5s.yaml@dynamo")
    assert shared(by_torchscript) == shared(by_dynamo) == YOLOV5S


# --- nets with something of their own; random weights and images, so scales are arbitrary ------------------------------

TOLERANCE = 5e-3  # of the largest output: a value on the edge between two levels may round either way


@pytest.fixture(scope="module")
def rows(yolov5: Path) -> dict[str, dict[str, Any]]:
    names = ("yolov5n6", "yolov5s-ghost", "yolov5s-transformer", "yolov5n-seg")
    cfgs = [f"models/{'segment' if name.endswith('seg') else 'hub'}/{name}.yaml" for name in names]
    return dict(zip(names, run("rows", yolov5, *cfgs)))


def test_onnx_equals_torch_and_every_conv_but_stem_and_head_is_quantized(rows: dict[str, dict[str, Any]]) -> None:
    for name, row in rows.items():
        assert row["difference"] < TOLERANCE, name
        assert row["float_convs_outside_head"] == ["model.0.conv"], name  # reads the image, with a stride of 2
        assert row["unused"] == 0, name
        assert row["failures"] == 0, name
        # detect convolutions on tensors that others read: the first reads INT8; of the others only the other readers do,
        # and the SiLU behind the float stem emits INT8
        shared = 3 if name == "yolov5n6" else 2
        assert row["separate_q"] == f"0+{shared - 1}+0", name
        assert [check for _, check, _ in row["findings"] if check == "float-weight"] == ["float-weight"], name
        assert row["seconds"] > row["group_seconds"] > 0, name


def test_a_detect_conv_takes_its_input_in_the_scale_of_the_other_readers(rows: dict[str, dict[str, Any]]) -> None:
    for name, row in rows.items():
        groups = [short(group) for group in row["shared_groups"]]
        head = "33" if name == "yolov5n6" else "24"
        assert sum(f"{head}.m.0" in group for group in groups) == 1, name
        assert not any(f"{head}.m.1" in group for group in groups), name
        assert [line for line in row["notes"] if f"{head}.m.0" in line] == [], name
        assert sum("also feeds" in line and f"{head}.m.1" in line for line in row["notes"]) == 1, name


def test_head_choices(yolov5: Path) -> None:
    assert run("heads", yolov5, "models/yolov5n.yaml") == {
        "auto": ["i", "", ""],
        "shared": ["i", "i", ""],
        "float": ["", "", ""],
        "input": ["i", "i", "i"],
        "int8": ["iw", "iw", "iw"],
    }


def test_p6_net_has_groups_on_four_levels(rows: dict[str, dict[str, Any]]) -> None:
    groups = [short(group) for group in rows["yolov5n6"]["shared_groups"]]
    # stride 32: the backbone's layer 8 and layer 12 by way of Upsample 13, in the Concats before 15 and 32
    assert {"9", "13", "15.cv1", "15.cv2", "32.cv1", "32.cv2"} in groups
    assert sum(len(group) == 6 for group in groups) == 3


def test_ghost_bottlenecks_have_quantized_sums(rows: dict[str, dict[str, Any]]) -> None:
    groups = [short(group) for group in rows["yolov5s-ghost"]["shared_groups"]]
    # the branch of the sum is a Concat of what GhostConv's second convolution reads and makes
    branch = next(group for group in groups if "2.m.0.addop:1" in group)
    assert "2.m.0.2.cv2" in branch or "2.m.0.conv.2.cv2" in branch


def test_attention_stays_float(rows: dict[str, dict[str, Any]]) -> None:
    reasons = [line for line in rows["yolov5s-transformer"]["notes"] if "linear layers" in line]
    assert rows["yolov5s-transformer"]["linears"] == 0
    assert len(reasons) == 1 and reasons[0].startswith("model.8.m: 6 linear layers are left float: attention ")


def test_last_layers_of_a_segmentation_head_stay_float(rows: dict[str, dict[str, Any]]) -> None:
    # the stem, three detect convolutions, the last of the mask prototypes
    assert rows["yolov5n-seg"]["float_convs"] == 5
    assert rows["yolov5n-seg"]["failures"] == 0


@pytest.mark.parametrize(
    "upstream, names",
    [
        ("yolov5", {"Bottleneck", "CrossConv", "GhostBottleneck"}),
        (
            "yolov7",
            {
                "Bottleneck",
                "RepBottleneck",
                "CrossConv",
                "Res",
                "RepRes",
                "ResX",
                "RepResX",
                "Ghost",
                "Shortcut",
                "Foldcut",
            },
        ),
    ],
)
def test_quantized_blocks_compute_what_upstreams_do(
    request: pytest.FixtureRequest, upstream: str, names: set[str]
) -> None:
    done = run("block_differences", request.getfixturevalue(upstream))
    assert {name for name, _, _ in done} == names
    assert all(equal and sums == 1 for _, equal, sums in done), done


def test_layers_that_rearrange(yolov7: Path) -> None:
    (row,) = run("rows", yolov7, NETS / "rearranging.yaml")
    # Chuncat moves halves of layer 1 and of the sum of layer 3 to layer 5; Foldcut sums halves of one tensor
    assert shared(row["shared_groups"]) == table("{2,3.addop,5} {6.addop,6.addop:1}")
    assert row["difference"] < TOLERANCE
    # GhostConv (layer 11) concatenates what its first convolution makes, which its second reads in INT8, for the float head
    assert row["separate_q"] == "1+1+0"


def test_auxiliary_head_through_checkpoint_and_export(yolov7: Path) -> None:
    with_rules, without = run("auxiliary_head", yolov7, NETS / "auxiliary.yaml")
    # quantizers that only the auxiliary head would use; none of the heads' tensors is read by another layer
    assert with_rules["off"] == [f"model.{layer}.conv" for layer in range(11, 15)] and without["off"] == []
    assert with_rules["difference"] < TOLERANCE and without["difference"] < TOLERANCE
    groups = [short(group) for group in with_rules["groups"] if len(group) > 1]
    assert {"4", "7"} in groups  # the tensor also feeds layer 11, which is not in the inference graph
    assert {"2.cv1", "2.cv3"} in groups  # DownC: a convolution, and a pool before the other
    assert all(len(group) == 1 for group in without["groups"])


HEAD_AND_STEM = ["model.0.conv", "model.24.m.1", "model.24.m.2"]


@pytest.mark.parametrize(
    "policy, left",
    [
        ([], []),
        ([r"model\.2\.m\.0\.addop"], ["model.2.m.0"]),  # a sum; the layers in its block stay quantized
        ([r"model\.2\.m\.0"], ["model.2.m.0", "model.2.m.0.cv1.conv", "model.2.m.0.cv2.conv"]),
    ],
)
def test_a_placement_is_what_was_asked_for_and_what_the_network_has(
    yolov5: Path, policy: list[str], left: list[str]
) -> None:
    decided, found = run("placed", yolov5, "models/yolov5n.yaml", *policy)
    assert decided == found and decided["extras"] and decided["float_weights"] == ["model.24.m.0"]
    assert sorted(decided["float_layers"]) == sorted([*HEAD_AND_STEM, *left])


def test_pair_at_the_stem_of_yolov7_tiny(yolov7: Path) -> None:
    """The default: `--stem auto` leaves the stem in INT8."""
    found = run("paired", yolov7, "cfg/training/yolov7-tiny.yaml", PlacementOptions().activation_pairs)
    assert found["decided"] == found["read off"] and found["decided"]["paired"] == ["model.0.conv"]
    assert found["decided"]["float_layers"] == [f"model.77.m.{level}" for level in range(3)]
    assert found["stem in float"] == [[], []]
    assert found["alone"] == ["model.0.conv:out"] and found["operators"] == ["LeakyRelu"]
    assert found["difference"] < 0.05
    assert found["findings"] == [["known", "activation"], ["known", "image"]]
    assert found["separate_q"] == {"image": 1, "known": 0, "avoidable": 0}
    plain = ["_input_quantizer", "_weight_quantizer"]
    with_pair = ["_input_quantizer", "_output_quantizer", "_weight_quantizer"]
    variants = found["variants"]
    assert variants.pop("stem-float") == [] and len(variants) == 9
    assert variants == {name: plain if name.startswith("stem-int8") else with_pair for name in variants}
    # of a checkpoint without the pair
    assert found["possible"] == ["stem-float", "stem-int8", "stem-int8-head-float", "stem-int8-head-shared"]


def test_pairs_before_one_activation_that_all_convolutions_share(yolov5: Path) -> None:
    """As ``activation:`` of yolov5's configurations makes it, and in place: one object behind 57 convolutions."""
    text = (yolov5 / "models" / "yolov5n.yaml").read_text()
    (yolov5 / "models" / "shared.yaml").write_text(f"{text}\nactivation: nn.LeakyReLU(0.1, inplace=True)\n")
    found = run("paired", yolov5, "models/shared.yaml", "all")
    assert found["decided"] == found["read off"]
    paired = found["decided"]["paired"]
    assert "model.0.conv" not in paired and len(paired) == 56  # 6x6: float is faster, with a pair too
    assert found["stem in float"] == [paired] * 2
    assert found["alone"] == [f"{path}:out" for path in paired]
    assert found["operators"] == ["LeakyRelu"] * 56
    assert ["fail", "activation"] not in found["findings"] and found["difference"] < 0.05
