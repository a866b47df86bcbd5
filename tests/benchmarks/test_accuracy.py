"""The accuracy benchmark around stub scripts that write known figures: what it runs, repeats, skips and reports.

The scripts that it runs are tested elsewhere; upstream's augmented images are made by the real upstreams here.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import accuracy
import accuracy_data
import accuracy_jobs
import accuracy_options
import accuracy_plan
import numpy as np
import pytest
import yaml

from quantization.errors import UserError
from support.workflow import SUPPORT

STUBS = SUPPORT / "accuracy_stubs"
SCRIPTS = {"bench-engine.py": "bench_engine.py", "eval-engine.py": "eval_engine.py", "qat-yolov5.py": "qat.py"}


def make_bundle(folder: Path, kind: str, calls: Path, fails_at: str = "--fail") -> Path:
    """A bundle of stubs: "own", or a "published" one; its quantize fails where ``fails_at`` is among the options."""
    (folder / "quantization").mkdir(parents=True)
    (folder / "scripts").mkdir()
    stub = {"kind": kind, "calls": str(calls), "fails_at": fails_at, "bundle": str(accuracy_jobs.BUNDLE)}
    (folder / "quantization" / "stub.json").write_text(json.dumps(stub))
    shutil.copyfile(STUBS / "upstream.py", folder / "quantization" / "upstream.py")
    for name, source in SCRIPTS.items():
        shutil.copyfile(STUBS / source, folder / "scripts" / name)
    return folder


class Bench:
    """The benchmark in a folder of stubs."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.calls_file = folder, folder / "calls.txt"
        self.work, self.out = folder / "work", folder / "out"

    def run(self, *more: str, seeds: str = "0 1") -> int:
        self.calls_file.write_text("")
        return accuracy.main(
            [
                "--work",
                str(self.work),
                "--out",
                str(self.out),
                "--models",
                "yolov5n",
                "--seeds",
                *seeds.split(),
                "--images",
                "3",
                "--val-images",
                "1",
                "--test-images",
                "1",
                "--imgsz",
                "64",
                "--classes",
                "2",
                "--device",
                "cpu",
                "--jobs",
                "2",
                "--methods",
                "mse",
                "max",
                "--mosaic-images",
                "0",
                *more,
            ]
        )

    def calls(self, *words: str) -> list[str]:
        """Of the scripts in the last run, those with these words."""
        return [line for line in self.calls_file.read_text().splitlines() if all(word in line for word in words)]

    def report(self) -> dict:
        return json.loads((self.out / "accuracy.json").read_text())


@pytest.fixture
def bench(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bench:
    made = Bench(tmp_path)
    own = make_bundle(tmp_path / "own", "own", made.calls_file)
    clone = tmp_path / "clone"
    (clone / "models").mkdir(parents=True)
    (clone / "models" / "yolo.py").write_text("")
    shutil.copyfile(STUBS / "train.py", clone / "launcher.py")
    for module in (accuracy, accuracy_data, accuracy_plan):
        monkeypatch.setattr(module, "BUNDLE", own)
    monkeypatch.setenv("YOLOV5_DIR", str(clone))
    return made


class TestStubs:
    def test_figures_of_the_report(self, bench: Bench) -> None:
        """Drops by hand: seed 0 loses what a word costs, seed 1 twice as much; ONNX costs 0.01 and 0.02 points."""
        assert bench.run("--variant", "lsq=--learn-scales x") == 0
        content = bench.report()
        rows = content["models"]["yolov5n"]
        expected = {
            "float": (0.0, 0.0),
            "mse": (0.2, 0.4),
            "max": (3.0, 6.0),
            "qat": (0.1, 0.2),
            "qat-lsq": (0.05, 0.1),
        }
        assert list(rows) == list(expected)
        for name, drops in expected.items():
            for backend, more in (("torch", (0.0, 0.0)), ("onnxruntime", (0.01, 0.02))):
                cell = rows[name]["backends"][backend]
                wanted = np.add(drops, more)
                np.testing.assert_allclose([cell["drop"]["0"], cell["drop"]["1"]], wanted, atol=1e-9)
                found = cell["drop_spread"]
                np.testing.assert_allclose(
                    [found["mean"], found["min"], found["max"], found["sd"]],
                    [wanted.mean(), wanted.min(), wanted.max(), wanted.std(ddof=1)],
                    atol=1e-9,
                )
        assert rows["float"]["backends"]["torch"]["map"] == {"0": 0.6, "1": 0.61} and content["failed"] == []
        text = (bench.out / "accuracy.md").read_text()
        assert "| PTQ, max | 4.50 (3.00 to 6.00) | " in text
        assert "Float: mAP@0.5:0.95 60.50 (60.00 to 61.00)" in text and "not photographs" in text
        assert content["calls"][0]["command"].startswith("python benchmarks/accuracy.py --work")
        assert str(bench.work) not in json.dumps(content["steps"])

    def test_second_call_runs_nothing(self, bench: Bench) -> None:
        assert bench.run() == 0 and len(bench.calls()) == 2 * (2 + 3 + 3 * 4 - 1 * 2)
        first = bench.report()["models"]
        assert bench.run() == 0 and bench.calls() == []
        assert bench.report()["models"] == first

    def test_lost_figure_and_changed_option_repeat_what_depends_on_them(self, bench: Bench) -> None:
        bench.run()
        (bench.work / "results" / "yolov5n-1" / "mse" / "onnxruntime.json").unlink()
        assert bench.run() == 0
        (call,) = bench.calls()
        assert call.startswith("test") and "yolov5n-1/mse/model.onnx" in call
        assert bench.run("--qat-options", "--lr 1e-4") == 0
        assert [call.split()[0] for call in bench.calls("yolov5n-0")] == ["quantize", "test", "export", "test"]
        assert len(bench.calls("--lr 1e-4")) == 2 and len(bench.calls()) == 8

    def test_one_runtime_alone(self, bench: Bench) -> None:
        """What an evaluation does not need is not run, and a new checkpoint leaves no figure of the old one."""
        for runtime, expected in (
            ("torch", ["quantize"] * 3 + ["test"] * 4),
            ("onnxruntime", ["export"] * 4 + ["test"] * 4),
        ):
            assert bench.run("--runtimes", runtime, seeds="0") == 0
            assert sorted(call.split()[0] for call in bench.calls()) == expected
        folder = bench.work / "results" / "yolov5n-0"
        assert bench.run("--runtimes", "onnxruntime", "--quantize-options=--calib-batches 3", seeds="0") == 0
        assert sorted(file.name for file in (folder / "mse").glob("*.json")) == ["onnxruntime.json", "steps.json"]
        assert (folder / "float" / "torch.json").is_file()  # it has not been made anew

    def test_results_are_enough_on_another_machine(self, bench: Bench) -> None:
        bench.run()
        for name in ("data", "runs", "checkouts"):
            shutil.rmtree(bench.work / name)
        bench.work = bench.work.rename(bench.folder / "moved")
        assert bench.run() == 0 and bench.calls() == []

    def test_other_settings_are_refused(self, bench: Bench) -> None:
        bench.run("--stages", "train")
        with pytest.raises(UserError, match=r"--epochs 30, not 31.*another --work"):
            bench.run("--epochs", "31")

    def test_two_calls_at_once_are_refused(self, bench: Bench) -> None:
        with accuracy_jobs.Workshop(bench.work, 1, 1):
            with pytest.raises(UserError, match="in use by another call"):
                bench.run()
        assert bench.run("--stages", "train") == 0

    def test_stopped_training_is_resumed_or_starts_anew(self, bench: Bench) -> None:
        for seed, state in (("0", "epoch 5"), ("1", "cannot resume")):
            folder = bench.work / "train" / f"yolov5n-{seed}" / "run" / "weights"
            folder.mkdir(parents=True)
            (folder / "last.pt").write_text(state)
        assert bench.run("--stages", "train") == 0
        weights = [bench.work / "train" / f"yolov5n-{seed}" / "run" / "weights" for seed in (0, 1)]
        assert [(folder / "log.txt").read_text() for folder in weights] == ["--resume", "--data"]
        assert (bench.work / "train" / "yolov5n-0" / "float.pt").read_text() == "seed 0"

    def test_sigterm_ends_the_commands(self, bench: Bench) -> None:
        """The lock is free afterwards only if the process of the training, which waits for ever, has ended too."""
        launcher = bench.folder / "clone" / "launcher.py"
        launcher.write_text(f"import os, signal\nos.kill({os.getpid()}, signal.SIGTERM)\nsignal.pause()\n")
        with pytest.raises(KeyboardInterrupt):
            bench.run("--stages", "train", seeds="0")
        shutil.copyfile(STUBS / "train.py", launcher)
        assert bench.run("--stages", "train") == 0 and not list(bench.work.glob("results/*/train/failed.json"))

    def test_failed_training_is_reported(self, bench: Bench) -> None:
        (bench.folder / "clone" / "launcher.py").write_text("print('loss nan'); raise SystemExit(3)")
        assert bench.run(seeds="0") == 1
        failed = bench.report()["failed"]
        assert (failed[0]["run"], failed[0]["message"]) == ("train", "exit code 3: loss nan")
        assert {failure["message"] for failure in failed[1:]} == {"there is no trained model"}

    def test_other_bundles(self, bench: Bench) -> None:
        """One works, the other's QAT fails: its PTQ and everything else is there."""
        good = make_bundle(bench.folder / "good", "published", bench.calls_file)
        bad = make_bundle(bench.folder / "bad", "published", bench.calls_file, fails_at="--qat")
        assert bench.run("--bundle", str(good), "--bundle", f"peer={bad}", seeds="1") == 1
        content = bench.report()
        rows = content["models"]["yolov5n"]
        drop = {name: row["backends"]["onnxruntime"]["drop"]["1"] for name, row in rows.items() if row["backends"]}
        assert drop["good-ptq"] == pytest.approx(2.02) and drop["good-qat"] == pytest.approx(1.82)
        assert drop["peer-ptq"] == pytest.approx(2.02) and "peer-qat" not in drop and drop["mse"] == pytest.approx(0.42)
        assert content["failed"] == [
            {
                "model": "yolov5n",
                "seed": 1,
                "run": "peer-qat",
                "step": "quantize",
                "message": "exit code 1: ValueError: 3 channels",
            }
        ]
        assert "peer-qat, quantize: `exit code 1: ValueError: 3 channels`" in (bench.out / "accuracy.md").read_text()

    def test_engines(self, bench: Bench) -> None:
        peer = make_bundle(bench.folder / "peer", "published", bench.calls_file)
        assert bench.run("--tensorrt-python", sys.executable, "--bundle", str(peer)) == 0
        content = bench.report()
        rows = content["models"]["yolov5n"]
        cells = {name: row["backends"].get("tensorrt") for name, row in rows.items()}
        drops = {name: cell["drop"] for name, cell in cells.items() if cell}
        assert list(drops) == ["float", "mse", "qat", "peer-ptq", "peer-qat"]
        assert drops["mse"] == {"0": pytest.approx(10), "1": pytest.approx(11)}
        assert content["tensorrt"] == {"tensorrt": "1.2.3"}

    @pytest.mark.parametrize(
        "arguments, message",
        [
            (["--bundle", "nowhere"], "nowhere has no quantization/"),
            (["--imgsz", "100"], "multiple of 32"),
            (["--bundle-options", "x=--a"], "there is no --bundle x"),
            (["--tensorrt-runs", "int4"], "int4 is none of"),
            (["--variant", "a=", "--variant", "a="], "one name"),
        ],
    )
    def test_bad_options(self, bench: Bench, arguments: list[str], message: str) -> None:
        with pytest.raises(UserError, match=message):
            bench.run(*arguments)
        assert not bench.work.exists()


def test_highest_learning_rate(tmp_path: Path) -> None:
    """Of the schedule that upstream follows during a warm-up: interpolation to the 10 E-th epoch, linear decay."""
    options = accuracy_options.build_parser().parse_args(["--work", str(tmp_path), "--epochs", "40", "--lr", "0.003"])
    options.work = tmp_path
    experiment = accuracy_plan.Experiment(options, "yolov5s", 0)
    experiment.training.mkdir(parents=True)
    words = experiment.train_options(tmp_path / "data.yaml")
    hyp = yaml.safe_load(Path(words[words.index("--hyp") + 1]).read_text())
    epochs = np.linspace(0, 40, 4001)
    rates = (
        np.interp(epochs, [0, hyp["warmup_epochs"]], [0, 1])
        * hyp["lr0"]
        * ((1 - epochs / 40) * (1 - hyp["lrf"]) + hyp["lrf"])
    )
    assert rates.max() == pytest.approx(0.003, rel=0.03)


def test_last_line_of_a_log() -> None:
    assert accuracy_jobs.last_line("a\n 10%\r 20% \r\n \n") == "20%"
    assert accuracy_jobs.last_line("") == "(no output)"
