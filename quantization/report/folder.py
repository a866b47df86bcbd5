"""The files of a run folder, and what they say."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from quantization.errors import UserError
from quantization.text import read_json

FILES = {
    "ptq": "ptq.pt",
    "qat": "qat.pt",
    "summary": "summary.json",
    "record": "deploy.json",
    "model": "model.onnx",
    "float model": "float.onnx",
    "preflight": "preflight.json",
    "sensitivity": "sensitive-summary.json",
    "bench": "engines/bench.json",
    "engine accuracy": "engines/map.json",
    "drawing": "engines/int8.svg",
    "comparison": "engines/compare.html",
    "report": "report.html",
}
# of one model
RESULTS = tuple(name for name in FILES if name not in ("ptq", "qat", "summary", "record"))
PICTURE_BYTES = 8 << 20  # a larger drawing is not put into the page


def run_file(folder: str | Path, name: str) -> str:
    """The path of a file in a run folder.

    Args:
        folder: the run folder.
        name: a key of ``FILES``.
    """
    return str(Path(folder) / FILES[name])


def remove_results(folder: str) -> list[str]:
    """Remove what belongs to the model of an earlier run in this folder, so that no report shows it with a new one's.

    Returns:
        The files that were removed; checkpoints stay until the new run writes its own.

    Raises:
        UserError: a file cannot be removed.
    """
    removed = []
    for name in RESULTS:
        file = Path(run_file(folder, name))
        try:
            file.unlink()
            removed.append(str(file))
        except FileNotFoundError:
            continue
        except OSError as error:
            raise UserError(
                f"{file} of an earlier run cannot be removed ({error.strerror}): choose another --out"
            ) from error
    return removed


@dataclass(frozen=True)
class Run:
    """What a run folder holds; what is missing is empty.

    Attributes:
        folder: its path.
        summary: of quantize: figures, options, versions, scales.
        record: of deploy: options, command lines.
        preflight: of check-onnx.
        sensitivity: of sensitive.
        bench: of bench-engine.
        engine_accuracy: of eval-engine.
        drawing: the engine as a picture, base64 of an SVG.
        comparison: name of the page that compares two engines, relative to the folder.
    """

    folder: str
    summary: dict[str, Any]
    record: dict[str, Any] = field(default_factory=dict)
    preflight: dict[str, Any] = field(default_factory=dict)
    sensitivity: dict[str, Any] = field(default_factory=dict)
    bench: dict[str, Any] = field(default_factory=dict)
    engine_accuracy: dict[str, Any] = field(default_factory=dict)
    drawing: str = ""
    comparison: str = ""


def read_run(folder: str) -> Run:
    """Read a run folder.

    Raises:
        UserError: it has no summary, or a file in it is damaged.
    """
    if not Path(run_file(folder, "summary")).is_file():
        raise UserError(f"{folder} is no run folder: it has no {FILES['summary']}; deploy --out makes one")
    summary = _read(folder, "summary")
    if not isinstance(summary.get("figures"), dict) or not isinstance(summary.get("options"), dict):
        raise UserError(f"{run_file(folder, 'summary')} is not the summary of quantize: name the folder of a run")
    picture = Path(run_file(folder, "drawing"))
    drawn = picture.is_file() and picture.stat().st_size <= PICTURE_BYTES
    return Run(
        folder,
        summary,
        record=_read(folder, "record"),
        preflight=_read(folder, "preflight"),
        sensitivity=_read(folder, "sensitivity"),
        bench=_read(folder, "bench"),
        engine_accuracy=_read(folder, "engine accuracy"),
        drawing=base64.b64encode(picture.read_bytes()).decode("ascii") if drawn else "",
        comparison=FILES["comparison"] if Path(run_file(folder, "comparison")).is_file() else "",
    )


def _read(folder: str, name: str) -> dict[str, Any]:
    """The content of a JSON of the folder; empty where there is none."""
    file = run_file(folder, name)
    if not Path(file).is_file():
        return {}
    content = read_json(file)
    if not isinstance(content, dict):
        raise UserError(f"{file} holds no JSON object: write it again, or remove it")
    return content
