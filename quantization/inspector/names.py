"""Which ONNX nodes, and so which upstream modules, a layer of an engine stands for."""

from __future__ import annotations

import os
import re
from typing import Sequence

from quantization.inspector.layers import Layer, clean
from quantization.onnx_graph.module_path import path_of_name

_METADATA_NODE = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
_SEPARATORS = re.compile(r" \+ | \|\| |, |\.\.\.|PWN\(|fc\(|\(|\)|\{ForeignNode\[|\]\}")
_PLAIN_NODE = re.compile(r"[A-Z][A-Za-z]+_\d+")  # exporters before torch 1.13 name nodes Conv_12
_NOT_COMPUTING = re.compile(r"(Quantize|Dequantize|Constant|Identity|Shape|Cast|SiluHalf|SiluScale)|.*_output_\d+|.*::")
_SILU = {"SiluTanh": "Sigmoid", "SiluAdd": "Mul"}  # as the export writes them: onnx_cleanup.respell_float_silu
_COPY_NODE = re.compile(r"^Reformatting CopyNode for (In|Out)put Tensor (\d+) (?:to|from) ")
_QUANTIZER = re.compile(r"(/\S+)/_input\d?_quantizer/(Q|De)")
_MODULE = re.compile(r"model\.\d+")


def metadata_nodes(layer: Layer) -> list[str]:
    """All ONNX nodes that the metadata of a layer name, from TensorRT 8.6 on."""
    return [clean(node) for node in _METADATA_NODE.findall(layer.metadata)]


def onnx_nodes(layer: Layer) -> tuple[str, ...]:
    """The computing ONNX nodes fused into a layer, as ``/model.5/conv/Conv``, without Q/DQ and constants.

    The metadata name them from TensorRT 8.6 on; before, the layer's own name does. A Reformat's name only says
    where it stands, so it counts for nothing. The scope ``addop`` of this bundle's QuantAdd is left out and so is
    everything above ``model.N``, and a SiLU that the export respells keeps upstream's names: the same upstream node
    has one name in float, PTQ and QAT engines.
    """
    found = metadata_nodes(layer)
    if not found and "reformat" not in layer.type.lower() and layer.type.lower() != "noop":
        found = [part.strip() for part in _SEPARATORS.split(layer.name)]
        found = [part for part in found if part.startswith("/") or _PLAIN_NODE.fullmatch(part)]
    nodes: list[str] = []
    for name in found:
        parts = [part for part in name.split("/") if part and part != "addop"]
        start = next((index for index, part in enumerate(parts) if _MODULE.fullmatch(part)), 0)
        if parts and not _NOT_COMPUTING.match(parts[-1]):
            node = "/" + "/".join([*parts[start:-1], _SILU.get(parts[-1], parts[-1])])
            if node not in nodes:
                nodes.append(node)
    return tuple(nodes)


def module_of(node: str) -> str:
    """``model.2.m.0.cv1.conv`` for ``/model.2/m/m.0/cv1/conv/Conv``; empty for a node without a scope."""
    return path_of_name(node)


def common_module(nodes: Sequence[str]) -> str:
    """The module that holds all nodes: ``model.5`` for ``/model.5/conv/Conv`` and ``/model.5/act/Mul``; empty if none.

    The last part ``conv`` of a lone convolution is left out as well, so that it matches its fused counterpart.
    """
    modules = [module_of(node).split(".") for node in nodes]
    common = os.path.commonprefix(modules) if modules else []  # noqa: RUF071 - of lists, element by element
    if common == ["model"]:
        return ""  # nodes of several upstream layers
    return ".".join(common[:-1] if len(common) > 2 and common[-1] in ("conv", "act") else common)


def block_of(nodes: Sequence[str]) -> str:
    """The upstream layer ``model.N`` of the first node; empty if it has none."""
    found = _MODULE.match(nodes[0].lstrip("/")) if nodes else None
    return found.group(0) if found else ""


def operations(nodes: Sequence[str]) -> list[str]:
    """Operations in words: ``["Conv", "SiLU"]`` for Conv, Sigmoid and Mul."""
    words = [re.sub(r"_\d+$", "", node.rsplit("/", 1)[-1]) for node in nodes]
    text = " ".join(words).replace("Sigmoid Mul", "SiLU")
    return text.split()


def title(layer: Layer) -> str:
    """A short title: ``model.5: Conv + SiLU``."""
    nodes = onnx_nodes(layer)
    if "reformat" in layer.type.lower() or not nodes:
        return shorten(_title_without_nodes(layer, nodes), 44)
    words = operations(nodes)
    text = " + ".join(words[:4] + ["..."] * (len(words) > 4))
    module = common_module(nodes)
    return shorten(f"{module}: {text}" if module else text)


def _title_without_nodes(layer: Layer, nodes: Sequence[str]) -> str:
    if nodes and layer.origin == "CONCAT":
        return f"into {nodes[0]}"
    quantizer = _QUANTIZER.match(layer.name)
    if quantizer:
        return f"{'DQ' if quantizer.group(2) == 'De' else 'Q'} of {module_of(quantizer.group(1) + '/Q')}"
    return _COPY_NODE.sub(r"\1put \2 of ", layer.name)


def shorten(text: str, length: int = 60) -> str:
    """``text`` with its middle left out if it is longer than ``length``."""
    return text if len(text) <= length else f"{text[: length // 2 - 2]} ... {text[-(length // 2 - 3) :]}"
