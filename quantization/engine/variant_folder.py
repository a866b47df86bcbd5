"""variants.json: what ``export --variants DIR`` wrote, read where the engines are built.

{"format": 1, "upstream": "yolov5", "size": [640, 640], "names": [...], "iou": 0.6,
 "variants": [{"name": "float", "file": "float.onnx", "sha256": "...", "quantize": null, "export": ["export", ...]},
              {"name": "default", "file": "default.onnx", "sha256": "...", "quantize": ["quantize", ...], ...}]}
"""

from __future__ import annotations

import dataclasses
import os
from dataclasses import dataclass
from typing import Any

from quantization.engine.plans import file_hash
from quantization.errors import UserError
from quantization.files import write_json
from quantization.onnx_graph.origin import UPSTREAM_NAMES
from quantization.text import read_json

FORMAT = 1
LIST_FILE = "variants.json"
FLOAT = "float"  # the variant without quantizers
MOST = 32  # more are no table that somebody reads


@dataclass(frozen=True)
class VariantFile:
    """One ONNX.

    Attributes:
        name: of the variant.
        file: in the folder.
        sha256: of its content.
        quantize: the words behind the script that make the checkpoint; empty: it is that which was exported; None: it is
            the float network.
        export: the words behind the script that make the ONNX from that.
    """

    name: str
    file: str
    sha256: str
    quantize: tuple[str, ...] | None
    export: tuple[str, ...]


@dataclass(frozen=True)
class VariantFolder:
    """All of them, the float one first.

    Attributes:
        upstream: "yolov5" or "yolov7".
        size: height and width of the input, pixels.
        names: of the classes.
        iou: the upstream's own threshold of non-maximum suppression.
        variants: at least the float one.
    """

    upstream: str
    size: tuple[int, int]
    names: tuple[str, ...]
    iou: float
    variants: tuple[VariantFile, ...]


def write_variant_folder(folder: str, content: VariantFolder) -> None:
    """Write variants.json; the file appears complete or not at all."""
    write_json(os.path.join(folder, LIST_FILE), {"format": FORMAT, **dataclasses.asdict(content)})


def read_variant_folder(folder: str) -> VariantFolder:
    """Read variants.json and check that the files are those that it lists.

    Raises:
        UserError: it is missing or damaged, of a newer version, or a file is missing or another one.
    """
    path = os.path.join(folder, LIST_FILE)
    if not os.path.isfile(path):
        raise UserError(f"--tune {folder} holds no {LIST_FILE}: name a folder that export --variants wrote")
    content = read_json(path, "--tune")
    number = content.get("format") if isinstance(content, dict) else None
    if type(number) is int and number > FORMAT:
        raise UserError(f"--tune {path} is of format {number}, this version reads {FORMAT}: update quant-tools")
    found = _parsed(content)
    if found is None:
        raise UserError(f"--tune {path} is damaged, or no list of variants: run export --variants again")
    for variant in found.variants:
        file = os.path.join(folder, variant.file)
        if not os.path.isfile(file):
            raise UserError(f"--tune {folder}: {variant.file} is missing: copy the whole folder, or export it again")
        if file_hash(file) != variant.sha256:
            raise UserError(f"--tune {folder}: {variant.file} is not what was exported: copy it or export it again")
    return found


def _parsed(content: Any) -> VariantFolder | None:
    """The content of variants.json; None if it is not of the form above."""
    names = {entry.name for entry in dataclasses.fields(VariantFolder)}
    if not isinstance(content, dict) or set(content) != {"format", *names} or content["format"] != FORMAT:
        return None
    upstream, size, classes, iou, listed = (content[name] for name in ("upstream", "size", "names", "iou", "variants"))
    fits = (
        upstream in UPSTREAM_NAMES
        and isinstance(size, list)
        and len(size) == 2
        and all(type(side) is int and side > 0 for side in size)
        and _are_words(classes)
        and type(iou) in (int, float)
        and 0 <= iou <= 1
        and isinstance(listed, list)
        and 0 < len(listed) <= MOST
    )
    variants = [_variant(entry) for entry in listed] if fits else []
    known = [variant for variant in variants if variant is not None]
    if not known or len(known) < len(variants) or known[0].name != FLOAT or known[0].quantize is not None:
        return None
    if len({variant.name for variant in known}) < len(known):
        return None
    return VariantFolder(upstream, (size[0], size[1]), tuple(classes), float(iou), tuple(known))


def _variant(entry: Any) -> VariantFile | None:
    """An entry of "variants"; None if it is none. A file lies in the folder itself, and its name is no option."""
    if not isinstance(entry, dict) or set(entry) != {part.name for part in dataclasses.fields(VariantFile)}:
        return None
    name, file, digest, quantize, export = (entry[part] for part in ("name", "file", "sha256", "quantize", "export"))
    if not _are_words([name, file, digest]) or not name or not file.endswith(".onnx"):
        return None
    if any(os.path.basename(text) != text or text.startswith(("-", ".")) for text in (name, file)):
        return None
    if not _are_words(export) or not (quantize is None or _are_words(quantize)):
        return None
    return VariantFile(name, file, digest, None if quantize is None else tuple(quantize), tuple(export))


def _are_words(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(part, str) for part in value)
