"""The house rules: arrows point down, no circles, small modules and functions, rooms without torch, one owner a name.

Each failure lists everything that breaks the rule. ``python tests/support/house.py`` prints the table of rooms.
"""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from support.house import ORDER, PACKAGE, RANK, ROOT, House, Measured, Module, imported_names
from support.workflow import SUPPORT, run_python

MODULE_LINES = 300
FUNCTION_LINES = 40
PARAMETERS = 5
# what runs where torch is missing: Jetson, TensorRT's Python, a user's own ONNX tools
WITHOUT_TORCH = (
    *("report", "viewing", "onnx_quantize", "evaluation", "engine", "inspector", "preflight", "handover"),
    *("onnx_graph", "ranges", "data"),
    *ORDER[-1],
)
WITH_TORCH = ("data.tensors",)
COMMAND_LINES = (
    "cli.",
    "engine.cli",
    "engine.arguments",
    "engine.combinations",
    "engine.named_engines",
    "argument_types",
)  # modules that may know argparse


@pytest.fixture(scope="module")
def house() -> House:
    return House()


def listed(lines: list[str]) -> str:
    return f"{len(lines)}:\n" + "\n".join(lines)


def test_every_module_has_its_place(house: House) -> None:
    unknown = sorted({module.place for module in house.modules.values()} - {"", *RANK})
    assert not unknown, f"not in support/house.py's ORDER: {unknown}"


def test_imports_point_downward(house: House) -> None:
    wrong = [
        str(arrow)
        for arrow in house.arrows
        if arrow.target.place
        and arrow.source.place != arrow.target.place
        and RANK[arrow.source.place] < RANK[arrow.target.place]
    ]
    assert not wrong, listed(wrong)


def test_nothing_imports_the_old_places(house: House) -> None:
    wrong = [str(arrow) for arrow in house.arrows if arrow.target.name in ("modules", "native")]
    assert not wrong, listed(wrong)


def test_no_import_circles(house: House) -> None:
    circles = [" - ".join(circle) for circle in house.circles()]
    assert not circles, listed(circles)


def test_modules_are_small(house: House) -> None:
    wrong = [f"{m.name}: {m.lines} lines" for m in house.modules.values() if m.lines > MODULE_LINES]
    assert not wrong, listed(wrong)


def test_functions_are_small_or_say_why_not(house: House) -> None:
    wrong = [str(function) for function in house.functions() if too_large(function)]
    assert not wrong, listed(wrong)


def too_large(function: Measured) -> bool:
    long = function.lines > FUNCTION_LINES and not function.explains("Kept long:")
    wide = function.parameters > PARAMETERS and not function.explains("Many parameters:")
    return long or wide


def test_rooms_without_torch_import_without_it(house: House) -> None:
    names = [m.name for m in house.modules.values() if m.place in WITHOUT_TORCH and m.name not in WITH_TORCH]
    assert len(names) > 30
    arguments = ["torch,torchvision", "modules", *(f"{PACKAGE}.{name}" for name in names)]
    failed: dict[str, str] = json.loads(run_python(ROOT, SUPPORT / "without.py", *arguments).stdout)
    assert not failed, listed([f"{name}: {reason}" for name, reason in failed.items()])


def test_only_the_command_lines_know_argparse(house: House) -> None:
    wrong = [
        f"{module.name}:{line}"
        for module in house.modules.values()
        for line, name in imported_names(module)
        if name.split(".")[0] == "argparse" and not module.name.startswith(COMMAND_LINES)
    ]
    assert not wrong, listed(wrong)


def test_rooms_say_what_they_are_and_import_nothing(house: House) -> None:
    rooms = [module for module in house.modules.values() if module.package and module.name]
    wrong = [room.name for room in rooms if not is_a_docstring_alone(room)]
    assert len(rooms) > 10 and not wrong, listed(wrong)


def is_a_docstring_alone(module: Module) -> bool:
    return len(module.tree.body) == 1 and bool(ast.get_docstring(module.tree))


def test_public_names_are_defined_once(house: House) -> None:
    repeated = [f"{name}: {', '.join(modules)}" for name, modules in house.repeated_names().items()]
    assert not repeated, listed(repeated)


# --- the reader itself, on a small package that breaks every rule ------------------------------------------------------

BROKEN = {
    "__init__.py": "",
    "errors.py": "from quantization.cli import parser\n",
    "cli/__init__.py": "",
    "cli/parser.py": "def twice():\n    from quantization import errors\n    return errors\n",
    "data/__init__.py": "",
    "data/images.py": (
        "from . import labels as other\nfrom .labels import once\nimport argparse\n\n"
        "class Loader:\n"
        '    """Loads.\n\n    Many parameters: all are needed.\n    """\n\n'
        "    def __init__(self, a, b, c, *, d, e, f):\n        pass\n\n"
        "def twice(*args, **kwargs): ...\n"
    ),
    "data/labels.py": "def once():\n    def inner(a, b):\n        return 1\n    return inner\n",
}


@pytest.fixture
def broken(tmp_path: Path) -> House:
    for name, text in BROKEN.items():
        file = tmp_path / PACKAGE / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return House(tmp_path)


def test_the_reader_finds_imports_and_circles(broken: House) -> None:
    assert [str(arrow) for arrow in broken.arrows] == [
        "cli.parser:2 imports errors",
        "data.images:1 imports data.labels",
        "data.images:2 imports data.labels",
        "errors:1 imports cli.parser",
    ]
    assert broken.circles() == [["cli.parser", "errors"]]
    assert broken.repeated_names() == {"twice": ["cli.parser", "data.images"]}


def test_the_reader_measures_functions(broken: House) -> None:
    sizes = {function.name: (function.lines, function.parameters) for function in broken.functions()}
    assert sizes == {"twice": (1, 0), "Loader.__init__": (2, 6), "once": (4, 0), "once.inner": (2, 2)}
    (init,) = (function for function in broken.functions() if function.name == "Loader.__init__")
    assert init.explains("Many parameters:") and not init.explains("Kept long:")
