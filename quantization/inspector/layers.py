"""Layer information of an engine (``--exportLayerInfo``, the engine inspector) read as records; TensorRT 8.5 to 11."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from quantization.errors import UserError
from quantization.inspector.names import printable
from quantization.inspector.profiles import select_profile
from quantization.inspector.records import EngineInfo, Layer, Tensor
from quantization.text import read_json

REBUILD = (
    "build the engine again with --profilingVerbosity=detailed (trtexec) or "
    "config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED, then export its layer information again"
)

_DATATYPES = {
    "int8": "Int8",
    "uint8": "UInt8",
    "int4": "Int4",
    "int32": "Int32",
    "int64": "Int64",
    "bool": "Bool",
    "fp32": "FP32",
    "float32": "FP32",
    "float": "FP32",
    "fp16": "FP16",
    "float16": "FP16",
    "half": "FP16",
    "bf16": "BF16",
    "bfloat16": "BF16",
    "fp8": "FP8",
    "fp4": "FP4",
}
_DATATYPE = re.compile(r"\b({})\b".format("|".join(_DATATYPES)), re.IGNORECASE)
_WIDTHS = {"two": 2, "four": 4, "eight": 8, "sixteen": 16, "thirty-two": 32}


def load_layers(path: Path, name: str = "", profile_index: int | None = None) -> EngineInfo:
    """Read layer information.

    Args:
        path: JSON from ``trtexec --exportLayerInfo`` or from the engine inspector.
        name: what to call the engine; default the file's name without ``-layer.json``.
        profile_index: number of the optimization profile to take; default the first.

    Raises:
        UserError: the file is unreadable, not such JSON, names layers only, or lacks that optimization profile.
    """
    data = read_export(path)
    if isinstance(data, list) and any(isinstance(item, dict) and "averageMs" in item for item in data):
        raise UserError(f"{path} is a profile (--exportProfile): give it as --profile, layer information as --layer")
    if not isinstance(data, dict) or not isinstance(data.get("Layers"), list):
        raise UserError(f'{path} has no list "Layers": give the file of trtexec --exportLayerInfo')
    if not data["Layers"]:
        raise UserError(f"{path} holds no layers: {REBUILD}")
    if any(isinstance(item, str) for item in data["Layers"]):
        raise UserError(f"{path} holds only the names of layers: {REBUILD}")
    layers = [_layer(item, index, f"{path}: layer {index}") for index, item in enumerate(data["Layers"])]
    engine = EngineInfo(printable(name or engine_name(path)), layers, _bindings(data, path))
    return select_profile(engine, profile_index, path, rename=not name)


def engine_name(path: Path) -> str:
    """``ptq`` for ``ptq-layer.json``."""
    return re.sub(r"[-_.](layers?|graph)$", "", Path(path).stem)


def read_export(path: Path) -> Any:
    """JSON that TensorRT wrote; layer names may hold raw control characters.

    Raises:
        UserError: the file is unreadable, or not JSON.
    """
    return read_json(path, "TensorRT's JSON", strict=False)


def _layer(item: Any, index: int, place: str) -> Layer:
    if not isinstance(item, dict):
        raise UserError(f"{place} is not an object")
    return Layer(
        index=index,
        name=printable(_text(item, "Name", place, required=True)),
        type=printable(_text(item, "LayerType", place)),
        inputs=_tensors(item, "Inputs", place),
        outputs=_tensors(item, "Outputs", place),
        origin=printable(_text(item, "Origin", place)).upper(),
        metadata=_text(item, "Metadata", place),
        record=item,
    )


def _tensors(item: dict[str, Any], key: str, place: str) -> list[Tensor]:
    values = item.get(key, [])  # signal and wait layers have none
    if not isinstance(values, list):
        raise UserError(f'{place}: "{key}" is not a list')
    tensors = []
    for value in values:
        if not isinstance(value, dict):
            raise UserError(f'{place}: "{key}" holds something that is not a tensor: {REBUILD}')
        shape = value.get("Dimensions", [])
        if not isinstance(shape, list) or not all(type(size) is int and abs(size) < 2**63 for size in shape):
            raise UserError(f'{place}: "Dimensions" of a tensor in "{key}" is not a list of whole numbers')
        tensors.append(
            Tensor(printable(_text(value, "Name", place, required=True)), tuple(shape), *_format(value, place))
        )
    return tensors


def _format(value: dict[str, Any], place: str) -> tuple[str, str]:
    """(datatype, layout) of a tensor: one text up to TensorRT 10, two fields in 11."""
    if "Format/Datatype" in value:
        text = _text(value, "Format/Datatype", place)
        return datatype_of(text), layout_of(text)
    datatype = _text(value, "Datatype", place) or _text(value, "DataType", place)
    return datatype_of(datatype), layout_of(_text(value, "Format", place))


def _bindings(data: dict[str, Any], path: Path) -> list[str]:
    """Network inputs and outputs: names up to TensorRT 10, objects under another key in 11."""
    values = data.get("Bindings", data.get("I/O Tensors", []))
    if not isinstance(values, list):
        raise UserError(f'{path}: "Bindings" or "I/O Tensors" is not a list')
    names = []
    for value in values:
        name: object = value.get("Name") if isinstance(value, dict) else value
        if not isinstance(name, str):
            raise UserError(f'{path}: "Bindings" or "I/O Tensors" holds something without a name')
        names.append(printable(name))
    return names


def _text(item: dict[str, Any], key: str, place: str, required: bool = False) -> str:
    value: object = item.get(key, None if required else "")
    if not isinstance(value, str):
        raise UserError(f'{place}: "{key}" is {"missing or " if required else ""}not a text')
    return value


def datatype_of(text: str) -> str:
    """``Int8`` for "Thirty-two wide channel vectorized row major Int8 format"; empty if no type is named."""
    found = _DATATYPE.search(text)
    return _DATATYPES[found.group(1).lower()] if found else ""


def layout_of(text: str) -> str:
    """``NC/32HW32`` for "Thirty-two wide channel vectorized row major Int8 format"; empty if unknown.

    TensorRT 11 writes CHW32, HWC8 and LINEAR for what earlier versions describe in a sentence.
    """
    low = text.lower()
    planes = "DHW" if "3 spatial" in low or "dhw" in low else "HW"
    vectorized = re.search(r"([\w-]+) wide channel vectorized|\bc?d?c?hw(\d+)", low)
    if vectorized:
        width = vectorized.group(2) or _WIDTHS.get(vectorized.group(1), "x")
        return f"NC/{width}{planes}{width}"
    channel_last = re.search(r"channel major(?:.*channel % (\d+))?|\bd?hwc(\d*)", low)
    if channel_last:
        return f"N{planes}C{channel_last.group(1) or channel_last.group(2) or ''}"
    if "dla" in low:
        return "DLA"
    return "linear" if "row major" in low or "linear" in low else ""
