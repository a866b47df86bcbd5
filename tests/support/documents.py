"""The documents' texts, and their command lines as the scripts' own parsers read them."""

from __future__ import annotations

import re
import runpy

from quantization.cli import parser as qat_parser
from quantization.cli.onnx_command import onnx_parser
from quantization.cli.predict import predict_parser
from quantization.engine.arguments import parser as bench_parser
from support.workflow import ROOT

CODE_BLOCK = re.compile(r"(?:^    .*\n|^\n(?=    ))+", re.MULTILINE)
COMMENT = re.compile(r"(?:^|\s)#.*")
TYPED = re.compile(r"(?:cp|cd|git|pip|python|make|docker|jupyter) ")  # how a line begins that is typed
INLINE = re.compile(r"`((?:python|make) [^`]+)`")


def text_of(document: str) -> str:
    """A document, with the lines of one command joined."""
    return (ROOT / document).read_text(encoding="utf-8").replace("\\\n", " ")


def code_blocks(document: str) -> list[list[str]]:
    """The code blocks of a document, as lines without indentation, comments and empty lines."""
    blocks = [
        [COMMENT.sub("", line[4:]).rstrip() for line in block.splitlines()]
        for block in CODE_BLOCK.findall(text_of(document))
    ]
    return [[line for line in block if line] for block in blocks]


def typed_lines(document: str) -> list[str]:
    """What a document tells to type, in its order but the lines within sentences last; equal lines once."""
    lines = [" ".join(line.split()) for block in code_blocks(document) for line in block if TYPED.match(line)]
    return list(dict.fromkeys(lines + INLINE.findall(text_of(document))))


def parse(script: str, words: list[str]) -> None:
    """Parse a command line as the script would; argparse exits, or a UserError is raised, where it does not fit."""
    if script.startswith("qat-yolo"):
        qat_parser.parse(script[4:], words)
    elif script == "predict":
        predict_parser().parse_intermixed_args(words)
    elif script == "quantize-onnx":
        onnx_parser().parse_args(words)
    elif script == "bench-engine":
        bench_parser().parse_args(words)
    else:
        entries = runpy.run_path(str(ROOT / "scripts" / f"{script}.py"))
        entries["build_parser"]().parse_args(words) if "build_parser" in entries else entries["parse_arguments"](words)
