"""Which ONNX nodes, and so which upstream modules, a name in an engine stands for."""

from __future__ import annotations

import os
import re
from typing import Sequence

from quantization.onnx_graph.module_path import path_of_name

_UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_METADATA_NODE = re.compile(r"\[ONNX Layer: ([^\]]*)\]")
_SEPARATORS = re.compile(r" \+ | \|\| |, |\.\.\.|PWN\(|fc\(|\(|\)|\{ForeignNode\[|\]\}")
_PLAIN_NODE = re.compile(r"[A-Z][A-Za-z]+_\d+")  # exporters before torch 1.13 name nodes Conv_12
_NOT_COMPUTING = re.compile(r"(Quantize|Dequantize|Constant|Identity|Shape|Cast|SiluHalf|SiluScale)|.*_output_\d+|.*::")
_SILU = {"SiluTanh": "Sigmoid", "SiluAdd": "Mul"}  # as the export writes them: cleanup.respell_float_silu
_COPY_NODE = re.compile(r"^Reformatting CopyNode for (In|Out)put Tensor (\d+) (?:to|from) ")
_QUANTIZER = re.compile(r"(/\S+)/_input\d?_quantizer/(Q|De)")
_MODULE = re.compile(r"model\.\d+")
# model.24.m.0 of YOLOv5 and YOLOv7; model.22.cv3.0.2, model.23.one2one_cv2.1.2 of later families
_DETECT = re.compile(r"model\.(\d+)\.(?:m|(?:one2one_)?cv\d+\.\d+)\.\d+")


def printable(text: str) -> str:
    """``text`` with what neither XML nor a terminal can show (control characters, lone surrogates) as spaces."""
    return _UNPRINTABLE.sub(" ", text)


def metadata_nodes(metadata: str) -> list[str]:
    """All ONNX nodes that the metadata of a layer name, from TensorRT 8.6 on."""
    return [printable(node) for node in _METADATA_NODE.findall(metadata)]


def named_nodes(name: str) -> list[str]:
    """The ONNX nodes that the name of a layer joins, as TensorRT before 8.6 does."""
    parts = [part.strip() for part in _SEPARATORS.split(name)]
    return [part for part in parts if part.startswith("/") or _PLAIN_NODE.fullmatch(part)]


def computing_nodes(names: Sequence[str]) -> tuple[str, ...]:
    """ONNX nodes as ``/model.5/conv/Conv``, without Q/DQ and constants, each once.

    The scope ``addop`` of this bundle's QuantAdd is left out and so is everything above ``model.N``, and a SiLU that
    the export respells keeps upstream's names: the same upstream node has one name in float, PTQ and QAT engines.
    """
    nodes: list[str] = []
    for name in names:
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


def same_block(conv: Sequence[str], after: Sequence[str]) -> bool:
    """Are the nodes ``after`` the activation of a convolution: of ``model.5.act`` or ``model.5`` for ``model.5.conv``?

    Args:
        conv: nodes of the layer with the convolution.
        after: nodes of the other layer.
    """
    homes = {_parent(module_of(node)) for node in conv if operations([node]) == ["Conv"]} - {""}
    return any(module in homes or _parent(module) in homes for module in map(module_of, after))


def _parent(module: str) -> str:
    return module.rpartition(".")[0]


def block_of(nodes: Sequence[str]) -> str:
    """The upstream layer ``model.N`` of the first node; empty if it has none."""
    found = _MODULE.match(nodes[0].lstrip("/")) if nodes else None
    return found.group(0) if found else ""


def block_number(nodes: Sequence[str]) -> int:
    """N of ``model.N`` of the first node; -1 if it has none."""
    block = block_of(nodes)
    return int(block.rpartition(".")[2]) if block else -1


def detect_block(nodes: Sequence[str]) -> int:
    """N for a convolution ``model.N.m.K`` or ``model.N.cvJ.K.L`` alone, the last ones of a detect layer; else -1."""
    found = [_DETECT.fullmatch(module_of(node)) for node in nodes if operations([node]) == ["Conv"]]
    return int(found[0].group(1)) if len(found) == 1 and found[0] else -1


def operations(nodes: Sequence[str]) -> list[str]:
    """Operations in words: ``["Conv", "SiLU"]`` for Conv, Sigmoid and Mul."""
    words = [re.sub(r"_\d+$", "", node.rsplit("/", 1)[-1]) for node in nodes]
    text = " ".join(words).replace("Sigmoid Mul", "SiLU")
    return text.split()


def computing_title(nodes: Sequence[str]) -> str:
    """A short title of a layer that computes ``nodes``: ``model.5: Conv + SiLU``."""
    done = operations(nodes)
    text = " + ".join(done[:4] + ["..."] * (len(done) > 4))
    module = common_module(nodes)
    return shorten(f"{module}: {text}" if module else text)


def other_title(name: str, origin: str, nodes: Sequence[str]) -> str:
    """A short title of a Reformat, or of a layer whose nodes are unknown."""
    quantizer = _QUANTIZER.match(name)
    if nodes and origin == "CONCAT":
        text = f"into {nodes[0]}"
    elif quantizer:
        text = f"{'DQ' if quantizer.group(2) == 'De' else 'Q'} of {module_of(quantizer.group(1) + '/Q')}"
    else:
        text = _COPY_NODE.sub(r"\1put \2 of ", name)
    return shorten(text, 44)


def shorten(text: str, length: int = 60) -> str:
    """``text`` with its middle left out if it is longer than ``length``."""
    return text if len(text) <= length else f"{text[: length // 2 - 2]} ... {text[-(length // 2 - 3) :]}"


def words(names: Sequence[str]) -> str:
    """``a, b and c``."""
    return " and ".join(filter(None, [", ".join(names[:-1]), names[-1]])) if names else "nothing"


def counted(number: int, noun: str) -> str:
    """``1 bias``, ``2 biases``."""
    return f"{number} {noun}" + ("" if number == 1 else "es" if noun.endswith(("s", "ch")) else "s")
