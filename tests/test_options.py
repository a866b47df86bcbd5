"""Options: every wrong value is refused by name, records read back, and the parser holds no default of its own."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import pytest
import yaml

from quantization.cli.options import COMMANDS, QuantizeCommand, SensitiveCommand
from quantization.cli.parser import parse, read_config
from quantization.errors import UserError
from quantization.evaluation.summary import Summary
from quantization.onnx_quantize.options import OnnxImageOptions
from quantization.option_fields import flag_of, make, record, walk
from quantization.options import CalibrationOptions, DataOptions, ExportOptions, LoadOptions, QatOptions
from quantization.viewing.options import PredictCommand
from quantization.viewing.sources import open_source


@pytest.mark.parametrize(
    "options, values, message",
    [
        (QatOptions, {"lr": math.nan}, "--lr nan is out of range: give a number above 0"),
        (QatOptions, {"lr": math.inf}, "--lr inf"),
        (QatOptions, {"lr": -1.0}, "--lr -1.0"),
        (QatOptions, {"ema": 1.0}, "--ema 1.0 is out of range: give a number at least 0 and below 1"),
        (QatOptions, {"epochs": 0}, "--epochs 0"),
        (QatOptions, {"task_weight": -0.5}, "--task-weight -0.5"),
        (QatOptions, {"schedule": "linear"}, "--schedule linear is unknown: choose one of steps, cosine"),
        (CalibrationOptions, {"batches": 0}, "--calib-batches 0"),
        (CalibrationOptions, {"method": "best"}, "--calib-method best"),
        (DataOptions, {"confidence": 1.5}, "--confidence 1.5"),
        (DataOptions, {"nmsthres": math.nan}, "--nmsthres nan"),
        (DataOptions, {"workers": -1}, "--workers -1"),
        (ExportOptions, {"size": (64, 64, 64)}, "--size takes N or H W"),
        (ExportOptions, {"size": (0,)}, "--size 0"),
        (ExportOptions, {"opset": 13, "exporter": "dynamo"}, "--opset 13 cannot hold per-channel Q/DQ: use 18"),
    ],
)
def test_wrong_values_are_refused_by_name(options: Any, values: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        options(**values)
    assert message in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_an_empty_command_line_gives_the_defaults_of_the_dataclasses(command: str) -> None:
    assert parse("yolov5", [command, "w.pt"]) == (command, COMMANDS[command](weight="w.pt"))  # type: ignore[call-arg]


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_names_of_options_are_unique_in_a_command(command: str) -> None:
    names = [entry.name for _, entry in walk(COMMANDS[command])]
    assert len(set(names)) == len(names)


def test_the_command_line_reaches_the_fields() -> None:
    _, options = parse(
        "yolov7",
        "quantize w.pt --qat q.pt --no-rules --no-equalize --calib-method mse --calib-batches 3 --ignore-policy a b "
        "--lr 1e-5 --task-weight 0 --imgsz 320 --device cpu --max-drop 0.1".split(),
    )
    assert isinstance(options, QuantizeCommand)
    assert options.qat == "q.pt" and options.max_drop == 0.1 and options.run.device == "cpu"
    assert not options.placement.rules and options.placement.ignore_policy == ("a", "b")
    assert options.calibration == CalibrationOptions(method="mse", equalize=False, batches=3)
    assert options.training == QatOptions(lr=1e-5, task_weight=0.0) and options.images == DataOptions(imgsz=320)


def test_a_record_is_a_config_file(tmp_path: Path) -> None:
    """summary.json's options, given back as --config, make the same options: types, flags and lists included."""
    _, options = parse(
        "yolov5", "quantize w.pt --qat q.pt --no-rules --square --ignore-policy a b --lr 3e-5 --ema 0.9".split()
    )
    content = record(options)
    assert json.loads(json.dumps(content)) == {**content, "ignore_policy": ["a", "b"]}
    file = tmp_path / "run.yaml"
    content.pop("weight")
    file.write_text(yaml.safe_dump(json.loads(json.dumps(content))))
    assert parse("yolov5", ["quantize", "w.pt", "--config", str(file)]) == ("quantize", options)


def test_a_summary_is_a_config_file(tmp_path: Path) -> None:
    """As a run writes it; its other entries, and its weight, do not count."""
    _, options = parse(
        "yolov5", "quantize ü/😀.pt --no-rules --ignore-policy a b --lr 3e-5 --eval-ptq --qat ü😀.pt".split()
    )
    file = tmp_path / "summary.json"
    summary = Summary(str(file), record(options), {"torch": "2"}, "run")
    summary.add(groups=[["a: b"]], images_that_failed=["ü\t*&.png"])
    assert parse("yolov5", ["quantize", "ü/😀.pt", "--config", str(file)]) == ("quantize", options)
    _, other = parse("yolov5", ["quantize", "other.pt", "--config", str(file), "--lr", "1"])
    assert isinstance(other, QuantizeCommand) and (other.weight, other.training.lr) == ("other.pt", 1)


def test_the_command_line_wins_over_the_config(tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text("calib-method: mse\nimgsz: 320\nsquare: true\nignore-policy: ['model\\.2']\nbackend:\n")
    _, options = parse("yolov5", ["sensitive", "w.pt", "--config", str(file), "--imgsz", "160"])
    assert isinstance(options, SensitiveCommand)
    assert options.calibration.method == "mse" and options.images.imgsz == 160 and options.images.square
    assert options.placement.ignore_policy == (r"model\.2",)


@pytest.mark.parametrize(
    "text, message",
    [
        ("calib-metod: mse", "no option calib-metod: did you mean calib-method?"),
        ("weight: a.pt", "no option weight"),
        ("imgsz: many", "invalid int value: 'many'"),
        ("square: 3", "square takes true or false"),
        ("imgsz: [1, 2]", "imgsz takes one value"),
        ("backend: cuda", "invalid choice: 'cuda'"),
        ("- imgsz", "no mapping"),
        ("a: [", "not valid YAML"),
    ],
)
def test_wrong_config_files_are_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=r"--config .*run\.yaml") as caught:
        read_config(str(file), QuantizeCommand)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_config_file_is_named() -> None:
    with pytest.raises(UserError, match=r"none\.yaml does not exist"):
        parse("yolov5", ["test", "w.pt", "--config", "none.yaml"])


def test_a_wrong_command_line_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    for words, message in (
        ("quantize w.pt --head foo", "invalid choice: 'foo'"),
        ("quantize", "WEIGHT"),
        ("", "COMMAND"),
    ):
        with pytest.raises(UserError) as caught:
            parse("yolov5", words.split())
        assert message in str(caught.value) and "--help" in str(caught.value) and "\n" not in str(caught.value)
    assert capsys.readouterr() == ("", "")


def test_options_cannot_be_changed() -> None:
    options = make(DataOptions, {"imgsz": 64})
    with pytest.raises(dataclasses.FrozenInstanceError):
        options.imgsz = 32  # type: ignore[misc]


@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_help_lists_every_option_once_and_those_that_few_need_last(
    command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parse("yolov5", [command, "--help"])
    text = capsys.readouterr().out
    listed = [line.split()[0].rstrip(",") for line in text.splitlines() if line.startswith("  -")]
    fields = [entry for _, entry in walk(COMMANDS[command]) if flag_of(entry)]
    assert sorted(listed) == sorted(["-h", "--config", "--quiet", *map(flag_of, fields)])
    behind = listed[-sum(entry.metadata["spec"].advanced for entry in fields) :]
    assert set(behind) == {flag_of(entry) for entry in fields if entry.metadata["spec"].advanced}
    assert "(default: None)" not in text and "(default: ())" not in text


@pytest.mark.parametrize(
    "line, message",
    [
        (
            "quantize w.pt --lr 1e-3 --fall-back-to-ptq",
            "--lr, --fall-back-to-ptq would have no effect without --qat FILE",
        ),
        ("quantize w.pt --save-every 3", "--save-every would have no effect without --qat FILE"),
        (
            "deploy w.pt --data d.yaml --epochs 3",
            "--epochs would have no effect without --qat: add that, or leave it out",
        ),
        ("quantize w.pt --no-rules --group-scale max", "--group-scale would have no effect without the rules"),
        (
            "quantize w.pt --no-rules --head shared --stem float --activation-pairs all",
            "--head, --stem, --activation-pairs would have no effect without the rules",
        ),
        ("sensitive w.pt --no-rules --group-scale max", "--group-scale would have no effect without the rules"),
        ("sensitive w.pt --metric sqnr --square", "--square would have no effect without --metric map"),
        ("export w.pt --topk-all 300", "--topk-all would have no effect without --end2end trt or onnx"),
        (
            "deploy w.pt --iou-thres 0.5 --conf-thres 0.1",
            "--iou-thres, --conf-thres would have no effect without --end2end",
        ),
    ],
)
def test_what_would_have_no_effect_is_refused(line: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse("yolov5", line.split())
    parse("yolov5", f"{line} --qat".split() if line.startswith("deploy w.pt --data") else line.split()[:2])


def test_no_rules_still_has_a_head_in_int8() -> None:
    parse("yolov5", "quantize w.pt --no-rules --head int8".split())


def test_variants_choose_pairs_before_activations_themselves() -> None:
    with pytest.raises(UserError, match="unrecognized arguments: --activation-pairs"):
        parse("yolov5", "export w.pt --variants v --activation-pairs all".split())


@pytest.mark.parametrize(
    "dashes, typed", [("\u2014\u2014", False), ("\u2013-", False), ("-\u2013", False), ("--", True)]
)
def test_dashes_of_an_input_method_are_named(dashes: str, typed: bool) -> None:
    with pytest.raises(UserError, match="unrecognized") as caught:
        parse("yolov5", ["test", "w.pt", f"{dashes}colour", "a\u2014b.yaml"])
    assert typed == ("type the dashes of an option as --" not in str(caught.value))


def test_a_resumed_run_takes_options_of_its_own_qat() -> None:
    for line in ("quantize w.pt --resume --save-every 3 --epochs 4", "deploy w.pt --resume --save-every 3"):
        parse("yolov5", line.split())


def test_images_and_models_of_one_kind_have_options_of_their_own() -> None:
    OnnxImageOptions(images="folder", seed=3, workers=2)
    PredictCommand("a.onnx", ("i.png",), compare="b.pt", run=LoadOptions(device="cpu"))
    for build, message in (
        (lambda: OnnxImageOptions(images="a.npy", seed=3, workers=2), "--workers, --seed would have no effect"),
        (lambda: PredictCommand("a.onnx", ("i.png",), run=LoadOptions(device="cpu")), "--device .* without a .pt"),
        (lambda: PredictCommand("a.onnx", cocodir="d", every=2), "--every would have no effect without a video"),
        (lambda: open_source(["i.png"], 2), "--every would have no effect without a video"),
    ):
        with pytest.raises(UserError, match=message):
            build()
