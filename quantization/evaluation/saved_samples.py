"""The samples of a network's figures in a file, so that another network, on another machine too, is compared with them."""

from __future__ import annotations

import hashlib
import logging
import zipfile
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from quantization.errors import UserError
from quantization.evaluation.bootstrap import RESAMPLES, Samples
from quantization.evaluation.coco import Evaluator, Metrics
from quantization.evaluation.ground_truth import TrueBoxes
from quantization.files import atomic_write

LOG = logging.getLogger("quantization")
FORMAT = 1
REMEDY = "give a .npz that --save-samples wrote for the float model"


def write_samples(file: str, metrics: Metrics, network: str, evaluator: Evaluator) -> None:
    """Write what ``read_samples`` reads.

    Args:
        file: a .npz.
        metrics: measured by ``evaluator``.
        network: its file, whose name stands for it.
        evaluator: whose annotations and conditions are noted.

    Raises:
        UserError: the file cannot be written.
    """
    assert metrics.samples is not None  # an evaluator gives them
    facts = {
        "format": FORMAT,
        "label": Path(network).name,
        "conditions": metrics.conditions,
        "truth": annotation_digest(evaluator),
    }
    parts: dict[str, Any] = {**facts, **asdict(metrics.samples)}
    with atomic_write(file) as temporary, open(temporary, "wb") as handle:
        np.savez(handle, **parts)


class SavedSamples(NamedTuple):
    """What a file of samples holds.

    Attributes:
        file: its name.
        label: of the network that was measured.
        conditions: under which it was.
        truth: digest of the annotations.
        samples: of its figures.
    """

    file: str
    label: str
    conditions: str
    truth: str
    samples: Samples


def read_samples(file: str) -> SavedSamples:
    """Read what ``write_samples`` wrote.

    Raises:
        UserError: it is no such file.
    """
    names = [entry.name for entry in fields(Samples)]
    try:
        with np.load(file, allow_pickle=False) as content:
            values = {name: content[name] for name in content.files}
        if not {"format", "label", "conditions", "truth", *names} <= set(values) or values["format"] != FORMAT:
            raise UserError(f"--against {file} is no file of samples of this version: {REMEDY}")
        samples = Samples(*(values[name].astype(np.float64) for name in names))
    except OSError as error:
        raise UserError(f"--against {file} cannot be read ({error.strerror or error}): {REMEDY}") from error
    except (ValueError, zipfile.BadZipFile, EOFError, TypeError, AttributeError) as error:
        raise UserError(f"--against {file} is no file of samples: {REMEDY}") from error
    if samples.map.shape != (RESAMPLES + 1,):
        raise UserError(f"--against {file} has samples of another version: {REMEDY}")
    label, conditions, truth = (str(values[name]) for name in ("label", "conditions", "truth"))
    return SavedSamples(file, label, conditions, truth, samples)


def compare_with(saved: SavedSamples, evaluator: Evaluator) -> None:
    """Let an evaluator compare all networks with the one whose samples were saved.

    Raises:
        UserError: they were made with other images or annotations.
    """
    if saved.truth != annotation_digest(evaluator):
        raise UserError(
            f"--against {saved.file} was made with other validation images, annotations or classes: make it again"
        )
    if saved.samples.classes.shape != (RESAMPLES + 1, len(evaluator.truth.names)):
        raise UserError(f"--against {saved.file} has samples of another version: {REMEDY}")
    if saved.conditions != evaluator.conditions:
        LOG.warning(
            "WARNING: %s was measured under other conditions (%s; now: %s): the difference holds their effect too",
            saved.file,
            saved.conditions,
            evaluator.conditions,
        )
    evaluator.references[saved.label] = saved.samples


def annotation_digest(evaluator: Evaluator) -> str:
    """Of all annotations, image by image."""
    digest = hashlib.sha256(f"{len(evaluator.truth.files)} images, {len(evaluator.truth.names)} classes".encode())
    truth: TrueBoxes = evaluator.truth.arrays()
    for part in vars(truth).values():
        digest.update(np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()
