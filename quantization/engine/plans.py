"""Plan files on disk, each with a record beside it that says what it was built from, so that a build is done once."""

from __future__ import annotations

import hashlib
import json
import os
from typing import Any

from quantization.errors import UserError
from quantization.files import atomic_write
from quantization.onnx_graph.origin import Origin, read_origin


def plan_origin(path: str) -> Origin | None:
    """The upstream of the network in a plan file, from the record beside it; None: there is none, or it does not tell."""
    try:
        with open(record_path(path), encoding="utf-8") as file:
            record = json.load(file)
    except (OSError, ValueError):  # made by trtexec, or moved without it
        return None
    metadata = record.get("metadata") if isinstance(record, dict) else None
    return read_origin(metadata) if isinstance(metadata, dict) else None


def file_hash(path: str) -> str:
    """SHA-256 of a file, in hex.

    Raises:
        UserError: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            for block in iter(lambda: file.read(1 << 20), b""):
                digest.update(block)
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): check the path") from error
    return digest.hexdigest()


def model_hash(onnx: str) -> str:
    """SHA-256 of an ONNX file, and of the external weights that torch's exporter puts into FILE.onnx.data."""
    weights = onnx + ".data"
    return file_hash(onnx) + (file_hash(weights) if os.path.isfile(weights) else "")


def record_path(plan_path: str) -> str:
    """The record of a plan file."""
    return plan_path + ".json"


def save_plan(path: str, plan: bytes, record: dict[str, Any]) -> None:
    """Write a plan and its record.

    Args:
        path: plan file.
        plan: serialized engine.
        record: what it was built from; ``plan_sha256`` is added.
    """
    with atomic_write(path) as temporary, open(temporary, "wb") as file:
        file.write(plan)
    record = dict(record, plan_sha256=hashlib.sha256(plan).hexdigest())
    with atomic_write(record_path(path)) as temporary, open(temporary, "w", encoding="utf-8") as file:
        json.dump(record, file, indent=1)


def load_plan(path: str, key: dict[str, Any], calib_cache: str | None = None) -> dict[str, Any] | None:
    """The record of a plan file that can be used instead of a build.

    Args:
        path: plan file.
        key: what the build would be made from; compared with the record's ``key``.
        calib_cache: calibration cache that the build would read; if it exists it must be the recorded one.

    Returns:
        The record; None if plan or record are missing, damaged or of something else.
    """
    try:
        with open(record_path(path), encoding="utf-8") as file:
            record = json.load(file)
    except (FileNotFoundError, ValueError):
        return None  # never built, or the record was damaged: build
    if not isinstance(record, dict) or record.get("key") != json.loads(json.dumps(key)) or not os.path.isfile(path):
        return None
    if calib_cache and os.path.isfile(calib_cache) and file_hash(calib_cache) != record.get("calib_sha256"):
        return None
    return record if file_hash(path) == record.get("plan_sha256") else None
