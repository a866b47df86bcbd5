"""What the documents name exists: files, links, and the options of every command."""

from __future__ import annotations

import functools
import re
import runpy
import shlex

import pytest

from quantization.cli import parser as qat_parser
from quantization.cli.onnx_command import onnx_parser
from quantization.cli.predict import predict_parser
from quantization.engine.arguments import parser as bench_parser
from quantization.errors import UserError
from support.house import ROOT
from support.workflow import run_python

DOCUMENTS = sorted(
    str(file.relative_to(ROOT))
    for file in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("imgs/*.md"))
    if file.name != "CHANGELOG.md"  # tells of what was, too
)
PACKAGE = ROOT / "quantization"
FOLDERS = ("quantization", "scripts", "benchmarks", "tests", "docs", "imgs", "examples")
ROOMS = [folder.name for folder in PACKAGE.iterdir() if folder.is_dir() and folder.name != "__pycache__"]
PATH = re.compile(rf"(?<![\w./-])(?:{'|'.join(FOLDERS)})/(?:[\w./-]|(?<!\*)\*(?!\*))*[\w/]")
MODULE = re.compile(rf"(?<![\w./-])(?:{'|'.join(ROOMS)})/\w+(?:\.py)?(?![\w/.-])")
PLACEHOLDER = re.compile(r"\b(?:ROOM|MODULE|DIR|NAME)\b")
LINK = re.compile(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)")
OPTION = re.compile(r"(?<![\w-])--[a-z][a-zA-Z0-9-]*")
CALL = re.compile(
    r"(?:scripts/)?(qat-yolov[57]|qat-yoloX|draw-engine|bench-engine|eval-engine|check-onnx|make-report|predict|quantize-onnx)"
    r"\.py\s+(.*)"
)
SCRIPTS = ("draw-engine", "bench-engine", "eval-engine", "check-onnx", "make-report", "predict", "quantize-onnx")
# of trtexec, pip, pytest, ruff, train.py and the older guides that the documents speak of
FOREIGN = {
    *("--onnx --fp16 --int8 --memPoolSize --shapes --saveEngine --profilingVerbosity --exportLayerInfo").split(),
    *("--exportProfile --separateProfileRun --useCudaGraph --useSpinWait --noDataTransfers --stronglyTyped").split(),
    *("--precisionConstraints --workspace --batch --check --single-cls --weights").split(),
    *("--buildOnly --skipInference --builderOptimizationLevel").split(),
    *("--nnodes --nproc --nproc_per_node --rdzv --rdzv-endpoint --rdzv-id --rdzv-backend --kills").split(),
}


@functools.lru_cache(maxsize=None)
def help_of(*words: str) -> frozenset[str]:
    """The options that ``--help`` of a script, or of a command of it, shows."""
    return frozenset(OPTION.findall(run_python(ROOT, ROOT / "scripts" / words[0], *words[1:], "--help").stdout))


def commands() -> dict[str, frozenset[str]]:
    """Options of each command and script."""
    qat = {name: help_of("qat-yolov5.py", name) for name in ("deploy", "quantize", "export", "sensitive", "test")}
    return {
        **qat,
        **{name: help_of(f"{name}.py") for name in SCRIPTS},
    }


def text_of(document: str) -> str:
    """A document, with the lines of one command joined."""
    return (ROOT / document).read_text(encoding="utf-8").replace("\\\n", " ")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_exist(document: str) -> None:
    text = text_of(document)
    named = [(ROOT, path) for path in PATH.findall(text)] + [(PACKAGE, path) for path in MODULE.findall(text)]
    missing = [
        path
        for base, path in named
        if not PLACEHOLDER.search(path)
        and not list(base.glob(path.rstrip("./") + ("" if (base / path).exists() else "*")))
        and not (ROOT / "tests" / path).exists()  # the document of a room's tests may leave tests/ out
    ]
    assert not missing


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    for target, anchor in LINK.findall(text_of(document)):
        file = (ROOT / document).parent / target if target else ROOT / document
        assert file.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w -]", "", line).strip().lower().replace(" ", "-") for line in headings}


@pytest.mark.parametrize("document", DOCUMENTS)
def test_command_lines_have_these_options(document: str) -> None:
    known = commands()
    for script, rest in CALL.findall(text_of(document)):
        rest = re.split(r"[`#;|]", rest)[0]
        words = rest.split()
        command = words[0] if script.startswith("qat-") and words else script
        if command in known:
            assert set(OPTION.findall(rest)) <= known[command] | {"--help"}, (script, rest)


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_option_named_is_one(document: str) -> None:
    of_benchmarks = set()
    for file in (ROOT / "benchmarks").glob("*.py"):
        of_benchmarks |= set(re.findall(r"[\"'](--[a-z][\w-]*)[\"']", file.read_text(encoding="utf-8")))
    known = FOREIGN | of_benchmarks | set().union(*commands().values())
    assert set(OPTION.findall(text_of(document))) <= known


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


def code_lines(document: str) -> list[tuple[str, list[str]]]:
    """Script and words of each command in the code blocks; ``...`` stands for more of the same."""
    lines = re.findall(r"^    python (scripts/\S+\.py .*)$", text_of(document), re.MULTILINE)
    found = [CALL.search(line) for line in lines]
    return [
        (match.group(1), [word for word in shlex.split(match.group(2), comments=True) if word != "..."])
        for match in found
        if match is not None
    ]


@pytest.mark.parametrize("document", DOCUMENTS)
def test_command_lines_parse(document: str) -> None:
    for script, words in code_lines(document):
        try:
            parse(script, words)
        except (SystemExit, UserError) as error:
            pytest.fail(f"{script} {words}: {error}")


def test_there_are_command_lines() -> None:
    assert sum(len(code_lines(document)) for document in DOCUMENTS) > 30


def test_the_table_of_commands_lists_their_own_options() -> None:
    rows = re.findall(
        r"^\| `(quantize|export|sensitive|test|deploy) WEIGHT` \|(.*)$", text_of("docs/commands.md"), re.MULTILINE
    )
    assert [name for name, _ in rows] == ["quantize", "export", "sensitive", "test", "deploy"]
    for name, row in rows:
        assert set(OPTION.findall(row)) - {"--ignore-policy"} <= commands()[name]
