"""What the documents name exists: files, links, and the options of every command."""

from __future__ import annotations

import functools
import re
import shlex

import pytest

from quantization.errors import UserError
from support.documents import parse, text_of
from support.house import ROOT
from support.workflow import run_python

DOCUMENTS = sorted(
    str(file.relative_to(ROOT))
    for file in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("imgs/*.md"))
    if file.name != "CHANGELOG.md"  # tells of what was, too
)
PACKAGE = ROOT / "quantization"
FOLDERS = ("quantization", "scripts", "benchmarks", "tests", "docs", "imgs", "examples", "docker")
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
# of trtexec, docker, pip, pytest, ruff, train.py and the older guides that the documents speak of
FOREIGN = {
    *("--onnx --fp16 --int8 --memPoolSize --shapes --saveEngine --profilingVerbosity --exportLayerInfo").split(),
    *("--exportProfile --separateProfileRun --useCudaGraph --useSpinWait --noDataTransfers --stronglyTyped").split(),
    *("--precisionConstraints --workspace --batch --check --single-cls --weights").split(),
    *("--rm --gpus --ipc --build-arg").split(),
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


def test_the_container_copies_what_exists_and_is_sent() -> None:
    folder = ROOT / "docker"
    copied = re.findall(r"^COPY (\S+) ", (folder / "Dockerfile").read_text(encoding="utf-8"), re.MULTILINE)
    assert copied and all((ROOT / name).exists() for name in copied)
    assert {f"!{name}" for name in copied} <= set((folder / "Dockerfile.dockerignore").read_text().split())
