"""The published workflow in real checkouts, by subprocess as a user runs it."""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any, Callable

import numpy as np
import onnx
import pytest

from support.workflow import CLASSES, IMAGE_SIZE, run_python, run_script, run_task

Checkouts = Callable[[str], Path]


def common(shapes: Path) -> tuple[object, ...]:
    return ("--cocodir", shapes, *f"--imgsz {IMAGE_SIZE} --device cpu --workers 2 --batch-size 8".split())


@pytest.fixture(scope="module")
def yolov5(checkouts: Checkouts, trained_yolov5: Path, shapes: Path) -> dict[str, Any]:
    """Quantize with PTQ and a short QAT, export and test, on the trained yolov5n."""
    checkout = checkouts("yolov5")
    done = run_script(
        checkout,
        "yolov5",
        "quantize --ptq ptq.pt --qat qat.pt --eval-origin --eval-ptq --epochs 1 --iters 6 --calib-batches 4 --square "
        "--backend native",
        trained_yolov5,
        *common(shapes),
    )
    places = "--save qat.onnx --triton repository --deepstream deepstream"
    export = run_script(checkout, "yolov5", f"export qat.pt --size {IMAGE_SIZE} --dynamic {places}")
    return {
        "checkout": checkout,
        "log": done.stdout,
        "export": export.stdout,
        "summary": json.loads((checkout / "summary.json").read_text()),
    }


class TestYolov5:
    def test_figures_and_log(self, yolov5: dict[str, Any]) -> None:
        figures = yolov5["summary"]["figures"]
        assert figures["float"]["map"] > 0.2  # trained: agreement below means something
        assert abs(figures["ptq"]["map"] - figures["float"]["map"]) < 0.05
        assert [epoch["epoch"] for epoch in figures["qat"]["epochs"]] == [0, 1] and figures["qat"]["epoch"] == 1
        assert figures["qat"]["epochs"][0]["merged"] == figures["ptq"]["merged"]
        apart = figures["qat"]["against"]["float"]["map"]
        assert apart["points"] == pytest.approx(100 * (figures["qat"]["map"] - figures["float"]["map"]), abs=1e-6)
        assert 0 < apart["plus_minus"] < 100 * figures["qat"]["plus_minus"]["map"]  # paired
        assert set(figures["qat"]["against"]) == {"float", "ptq"} and set(figures["ptq"]["against"]) == {"float"}
        size = f"squares of {IMAGE_SIZE}, NMS IoU 0.6, confidence 0.001"
        assert size in yolov5["log"] and "  against float, in points: mAP@0.5:0.95 " in yolov5["log"]
        assert "WARNING: QAT of 6 steps is too short for --lr 0.0001" in yolov5["log"]
        assert "Rules: model.2.cv1.conv match to model.2.cv2.conv" in yolov5["log"]
        assert yolov5["summary"]["options"]["iters"] == 6 and yolov5["summary"]["versions"]["torch"]

    def test_checkpoint_explains_itself(self, yolov5: dict[str, Any]) -> None:
        facts = run_task(yolov5["checkout"], "checkpoint_facts", "qat.pt")
        assert {"amax", "calib_method", "groups", "history", "versions", "options", "backend"} <= set(facts["keys"])
        assert facts["module"] == "quantization.quantizers.native"
        assert (facts["calibrators"], facts["gradients"]) == (0, False)
        # 56 weights (60 convolutions; stem and head's are float), and one quantizer for each of the groups
        assert facts["quantizers"] == 56 + len(facts["groups"])
        assert [group for group in facts["groups"] if "model.15" in group] == [
            [
                "model.5.conv",
                "model.15",
                "model.17.cv1.conv",
                "model.17.cv2.conv",
                "model.20.cv1.conv",
                "model.20.cv2.conv",
            ]
        ]

    def test_onnx_runtime_gives_torchs_map(self, yolov5: dict[str, Any], shapes: Path) -> None:
        run_script(
            yolov5["checkout"],
            "yolov5",
            "test qat.onnx --save-json onnx.json --save-samples onnx.npz",
            *common(shapes),
        )
        onnx_map = json.loads((yolov5["checkout"] / "onnx.json").read_text())["map"]
        assert onnx_map == pytest.approx(yolov5["summary"]["figures"]["qat"]["map"], abs=0.002)

    def test_upstreams_val_gives_our_map(self, yolov5: dict[str, Any], shapes: Path) -> None:
        """On the quantized checkpoint, without our code but the launcher; pycocotools reads its own JSON."""
        checkout = yolov5["checkout"]
        options = (
            f"--imgsz {IMAGE_SIZE} --batch-size 8 --device cpu --workers 0 --save-json --project runs/val --name qat"
        )
        val = "-m quantization.upstream val.py --weights qat.pt --exist-ok --data"
        run_python(checkout, *val.split(), shapes / "data.yaml", *options.split())
        run_script(checkout, "yolov5", "test qat.pt --save-json qat.json", *common(shapes))
        theirs = pycocotools_map(shapes, checkout / "runs" / "val" / "qat" / "qat_predictions.json")
        ours = json.loads((checkout / "qat.json").read_text())["map"]
        assert ours == pytest.approx(theirs, abs=0.002) and ours > 0.2

    def test_onnx_form(self, yolov5: dict[str, Any]) -> None:
        model = onnx.load(str(yolov5["checkout"] / "qat.onnx"))
        onnx.checker.check_model(model, full_check=True)
        assert [value.name for value in model.graph.input] == ["images"]
        assert [value.name for value in model.graph.output] == ["outputs"]
        shape = [dim.dim_param or dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim]
        assert shape == ["batch", 3, IMAGE_SIZE, IMAGE_SIZE]
        operators = [node.op_type for node in model.graph.node]
        # 56 weights, and one for each distinct tensor that is read in INT8, not the image: equal ones are merged
        assert operators.count("QuantizeLinear") == 56 + 57 and "Identity" not in operators
        assert operators.count("Conv") == 60
        assert "ONNX Runtime against torch on drawn images" in yolov5["export"]

    def test_hand_over_to_triton_and_deepstream(self, yolov5: dict[str, Any]) -> None:
        checkout = yolov5["checkout"]
        model = onnx.load(str(checkout / "qat.onnx"))
        names = ast.literal_eval({entry.key: entry.value for entry in model.metadata_props}["names"])
        assert sorted(names) == list(range(CLASSES))
        for folder, file in (("repository/qat", "1/model.onnx"), ("deepstream", "model.onnx")):
            assert onnx.load(str(checkout / folder / file)) == model
            assert (checkout / folder / "labels.txt").read_text().split() == list(names.values())
        assert f"dims: [ 3, {IMAGE_SIZE}, {IMAGE_SIZE} ]" in (checkout / "repository/qat/config.pbtxt").read_text()
        assert f"num-detected-classes={CLASSES}\n" in (checkout / "deepstream/config_infer.txt").read_text()

    def test_predict_sees_the_same_in_torch_and_onnx(self, yolov5: dict[str, Any], shapes: Path) -> None:
        checkout = yolov5["checkout"]
        images = sorted((shapes / "images" / "val2017").iterdir())[:6]
        arguments = ("qat.pt", *images, "--compare", "qat.onnx", "--device", "cpu", "--out", "pictures-of-qat")
        done = run_python(checkout, "scripts/predict.py", *arguments)
        record = json.loads((checkout / "pictures-of-qat" / "predictions.json").read_text())
        assert sum(entry["changes"].get("kept", 0) for entry in record["images"]) >= 6, done.stdout
        # a value half way between two levels may round to either: no certain box is lost or new
        assert max(entry["disagreement"] for entry in record["images"]) < 0.3

    def test_simplified_and_dynamo_exports_agree(self, yolov5: dict[str, Any]) -> None:
        import onnxruntime

        checkout = yolov5["checkout"]
        run_script(checkout, "yolov5", f"export qat.pt --size {IMAGE_SIZE} --save simple.onnx --simplify --batch 2")
        run_script(
            checkout, "yolov5", f"export qat.pt --size {IMAGE_SIZE} --save dynamo.onnx --exporter dynamo --dynamic"
        )
        images = np.random.default_rng(0).random((2, 3, IMAGE_SIZE, IMAGE_SIZE), dtype=np.float32)
        outputs = [
            onnxruntime.InferenceSession(str(checkout / name), providers=["CPUExecutionProvider"]).run(
                None, {"images": images}
            )[0]
            for name in ("qat.onnx", "simple.onnx", "dynamo.onnx")
        ]
        for other in outputs[1:]:
            # a value half way between two levels may round to either
            assert np.abs(other - outputs[0]).mean() < 0.01 and np.abs(other - outputs[0]).max() < 3

    def test_no_rules_ignores_and_percentile(self, yolov5: dict[str, Any], trained_yolov5: Path, shapes: Path) -> None:
        checkout = yolov5["checkout"]
        done = run_script(
            checkout,
            "yolov5",
            r"quantize --ptq plain.pt --summary plain.json --ignore-policy model\.2 .*\.cv3\..* --no-rules "
            "--calib-batches 1 --calib-method percentile",
            trained_yolov5,
            *common(shapes),
        )
        assert "Rules:" not in done.stdout
        groups = json.loads((checkout / "plain.json").read_text())["groups"]
        assert all(len(group) == 1 for group in groups)
        names = {group[0] for group in groups}
        assert "model.20.cv1.conv" in names and "model.1.conv" in names
        assert not [name for name in names if name.startswith("model.2.") or ".cv3." in name or "model.24" in name]

    def test_sensitive(self, yolov5: dict[str, Any], shapes: Path) -> None:
        checkout = yolov5["checkout"]
        done = run_script(checkout, "yolov5", "sensitive ptq.pt --num-image 8", *common(shapes))
        content = json.loads((checkout / "sensitive-summary.json").read_text())
        assert content["baseline"]["images"] == 8
        assert {entry["layer"] for entry in content["layers"]} == {
            f"model.{index}" for index in range(1, 25) if index not in (12, 16, 19, 22)
        }
        maps = [entry["map"] for entry in content["layers"]]
        assert maps == sorted(maps, reverse=True) and len(set(maps)) > 3
        assert (checkout / "sensitive-summary.png").stat().st_size > 10_000
        assert "gain in points" in done.stdout

    def test_sqnr_and_a_budget_that_is_met(self, yolov5: dict[str, Any], trained_yolov5: Path, shapes: Path) -> None:
        checkout = yolov5["checkout"]
        done = run_script(
            checkout, "yolov5", "sensitive ptq.pt --metric sqnr --num-image 8 --summary sqnr.json", *common(shapes)
        )
        units = json.loads((checkout / "sqnr.json").read_text())["units"]
        assert [unit["sqnr_db"] for unit in units] == sorted(unit["sqnr_db"] for unit in units)
        assert sum(unit["share"] for unit in units) == pytest.approx(1, abs=1e-3)
        assert "--ignore-policy" in done.stdout and (checkout / "sqnr.png").stat().st_size > 10_000
        done = run_script(
            checkout,
            "yolov5",
            "quantize --ptq budget.pt --summary budget.json --max-drop 50 --calib-batches 1 --square",
            trained_yolov5,
            *common(shapes),
        )
        assert "all units stay quantized" in done.stdout
        assert set(json.loads((checkout / "budget.json").read_text())["figures"]) == {"float", "ptq"}


def pycocotools_map(shapes: Path, predictions: Path) -> float:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = COCO(str(shapes / "annotations" / "instances_val2017.json"))
    offset = min(truth.getCatIds())  # upstream numbers the classes of other data sets from 0
    content = [{**entry, "category_id": entry["category_id"] + offset} for entry in json.loads(predictions.read_text())]
    evaluation = COCOeval(truth, truth.loadRes(content), "bbox")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return float(evaluation.stats[0])


class TestYolov7:
    def test_workflow(self, checkouts: Checkouts, random_yolov7_tiny: Path, shapes: Path) -> None:
        checkout = checkouts("yolov7")
        few = shapes.parent / "few"  # yolov5's label cache would stop yolov7's test.py, so it reads a list of its own
        few.mkdir(exist_ok=True)
        lines = [str(shapes / line) for line in (shapes / "val2017.txt").read_text().splitlines()[:8]]
        for name in ("train", "val"):
            (few / f"{name}.txt").write_text("\n".join(lines))
        (few / "data.yaml").write_text(
            f"train: {few}/train.txt\nval: {few}/val.txt\nnc: {CLASSES}\n"
            f"names: {[f'c{number}' for number in range(CLASSES)]}\n"
        )
        options = "--imgsz 64 --device cpu --batch-size 4 --backend native --confidence 0.05"
        data = ("--data", few / "data.yaml", *options.split())
        done = run_script(
            checkout,
            "yolov7",
            "deploy --out run --qat --epochs 2 --iters 2 --calib-batches 2 --dynamic",
            random_yolov7_tiny,
            *data,
        )
        assert "Rules: model.4.conv, model.5.conv match to model.7.conv" in done.stdout
        assert "Equalized the ranges of" in done.stdout
        assert "Ship run/ptq.pt: PTQ, " in done.stdout  # random weights find nothing
        summary = json.loads((checkout / "run" / "summary.json").read_text())
        assert set(summary["figures"]) == {"float", "ptq", "qat"}
        assert [epoch["epoch"] for epoch in summary["figures"]["qat"]["epochs"]] == [0, 1, 2]
        assert summary["options"]["square"] and (checkout / "run" / "report.html").is_file()
        operators = [node.op_type for node in onnx.load(str(checkout / "run" / "model.onnx")).graph.node]
        assert "QuantizeLinear" in operators and (checkout / "run" / "float.onnx").is_file()
        run_script(checkout, "yolov7", "export run/qat.pt --size 64 96 --dynamic")
        model = onnx.load(str(checkout / "run" / "qat.onnx"))
        assert len(model.graph.output) == 1
        assert [dim.dim_value for dim in model.graph.input[0].type.tensor_type.shape.dim][1:] == [3, 64, 96]
        run_script(checkout, "yolov7", "test run/ptq.pt", *data)
        done = run_script(
            checkout, "yolov7", "sensitive --num-image 2 --calib-batches 1 --no-equalize", random_yolov7_tiny, *data
        )
        assert "Equalized" not in done.stdout
        options = "--img-size 64 --batch-size 4 --device cpu --no-trace --conf-thres 0.05 --name qat --exist-ok"
        val = "-m quantization.upstream test.py --weights run/qat.pt --data"
        done = run_python(checkout, *val.split(), few / "data.yaml", *options.split())
        assert "mAP@.5:.95" in done.stdout + done.stderr

    def test_fusing_again_changes_nothing(self, checkouts: Checkouts, random_yolov7_tiny: Path) -> None:
        """Upstream's loader folds the head's implicit tensors into its convolutions each time it loads."""
        first, second = run_task(checkouts("yolov7"), "fuse_twice", random_yolov7_tiny)
        assert first < 1e-4 and second < 1e-6

    def test_grids_of_a_checkpoint_are_not_used(
        self, checkouts: Checkouts, random_yolov7_tiny: Path, tmp_path: Path
    ) -> None:
        """yolov7's grids do not move with the model: on a GPU those of a checkpoint would still be on the CPU."""
        assert run_task(checkouts("yolov7"), "grids_after_load", random_yolov7_tiny, tmp_path / "spoilt.pt") < 1e-4


@pytest.mark.parametrize("upstream", ["yolov5", "yolov7"])
def test_suppression_equals_upstreams(checkouts: Checkouts, upstream: str) -> None:
    for seed in range(3):
        result = run_task(checkouts(upstream), "suppression", seed)
        assert all(ours == theirs > 20 for ours, theirs in result["counts"])
        assert result["difference"] < 0.01
