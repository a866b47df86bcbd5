"""The package as modules, rooms and imports, read from its source without importing it.

``python tests/support/house.py [CHECKOUT]`` prints a table of the rooms; CHECKOUT may hold another version.
"""

from __future__ import annotations

import ast
import re
import sys
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Iterator, Union

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "quantization"
TOP = "(top level)"  # modules that are in no room

# a room may import rooms and modules below its own line, never above it
ORDER = (
    ("cli",),
    ("quantize",),
    ("sensitivity",),
    ("calibration",),
    ("placement",),
    ("qat",),
    ("export",),
    ("upstream",),
    ("report", "viewing", "onnx_quantize"),
    ("evaluation",),
    ("engine",),
    ("inspector",),
    ("preflight",),
    ("handover",),
    ("modules", "native"),  # old places that checkpoints of version 0.1 name
    ("quantizers",),
    ("data",),
    ("onnx_graph", "ranges"),
    ("options",),
    ("locks", "pictures", "distributed", "closing"),
    ("option_fields", "progress_bar", "files", "text", "tables", "dot", "argument_types", "memory", "failures"),
    ("errors", "union_find", "processes"),
    ("signals", "streams"),
)
RANK = {name: len(ORDER) - line for line, names in enumerate(ORDER) for name in names}

Function = Union[ast.FunctionDef, ast.AsyncFunctionDef]


@dataclass(frozen=True)
class Module:
    """One file of the package.

    Attributes:
        name: dotted, without the package: "engine.build"; of an ``__init__.py`` its folder's, of the package's "".
        file: where it is.
        package: whether it is an ``__init__.py``.
    """

    name: str
    file: Path
    package: bool

    @cached_property
    def source(self) -> str:
        """Its text."""
        return self.file.read_text(encoding="utf-8")

    @cached_property
    def tree(self) -> ast.Module:
        """Its syntax tree."""
        return ast.parse(self.source, str(self.file))

    @property
    def lines(self) -> int:
        """How many lines it has."""
        return len(self.source.splitlines())

    @property
    def place(self) -> str:
        """The part of the house: a room's name, or a top-level module's."""
        return self.name.split(".")[0]

    @property
    def room(self) -> str:
        """The room's name; ``TOP`` for a module in none."""
        return self.place if "." in self.name or (self.package and self.name) else TOP


@dataclass(frozen=True)
class Arrow:
    """An import of one module of the package by another."""

    source: Module
    target: Module
    line: int

    def __str__(self) -> str:
        return f"{self.source.name}:{self.line} imports {self.target.name}"


@dataclass(frozen=True)
class Measured:
    """The size of a function: whole lines with its docstring, and parameters without self, cls, * and **."""

    module: Module
    name: str
    line: int
    lines: int
    parameters: int
    docstring: str

    def explains(self, label: str) -> bool:
        """Whether a sentence of the docstring starts with ``label``."""
        return re.search(rf"(?:^|[.\s]){re.escape(label)} \S", self.docstring) is not None

    def __str__(self) -> str:
        return f"{self.module.name}:{self.line} {self.name}: {self.lines} lines, {self.parameters} parameters"


class House:
    """All modules of the package in a checkout."""

    def __init__(self, root: Path = ROOT) -> None:
        base = root / PACKAGE
        self.modules: dict[str, Module] = {}
        for file in sorted(base.rglob("*.py")):
            parts = file.relative_to(base).with_suffix("").parts
            package = parts[-1] == "__init__"
            name = ".".join(parts[:-1] if package else parts)
            self.modules[name] = Module(name, file, package)

    @cached_property
    def arrows(self) -> list[Arrow]:
        """All imports between modules, also those inside functions."""
        found = []
        for module in self.modules.values():
            for line, name in imported_names(module):
                target = self._module_of(name)
                if target is not None and target is not module:
                    found.append(Arrow(module, target, line))
        return found

    def _module_of(self, name: str) -> Module | None:
        """The module that a dotted name is, or is defined in; None outside the package."""
        if name.split(".")[0] != PACKAGE:
            return None
        parts = name.split(".")[1:]
        while parts and ".".join(parts) not in self.modules:
            parts.pop()
        return self.modules[".".join(parts)]

    def circles(self) -> list[list[str]]:
        """Groups of modules that import each other, directly or through others."""
        below = {name: self._reachable(name) for name in self.modules}
        found: list[list[str]] = []
        for name, reached in below.items():
            circle = sorted(other for other in reached if name in below[other])
            if circle and circle not in found:
                found.append(circle)
        return found

    def _reachable(self, start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            for name in self._targets[waiting.pop()] - seen:
                seen.add(name)
                waiting.append(name)
        return seen

    @cached_property
    def _targets(self) -> dict[str, set[str]]:
        targets: dict[str, set[str]] = {name: set() for name in self.modules}
        for arrow in self.arrows:
            targets[arrow.source.name].add(arrow.target.name)
        return targets

    def levels(self) -> int:
        """Modules on the longest chain of imports; meaningless where there are circles."""
        depth: dict[str, int] = {}

        def measure(name: str, chain: tuple[str, ...]) -> int:
            if name not in depth:
                below = [measure(target, (*chain, name)) for target in self._targets[name] if target not in chain]
                depth[name] = 1 + max(below, default=0)
            return depth[name]

        return max(measure(name, ()) for name in self.modules)

    def functions(self) -> Iterator[Measured]:
        """Every function and method, nested ones too, with its size."""
        for module in self.modules.values():
            yield from _functions(module, module.tree, "", "")

    def repeated_names(self) -> dict[str, list[str]]:
        """Public top-level functions and classes that several modules define, with the modules. ``main`` may repeat."""
        places: dict[str, list[str]] = {}
        for module in self.modules.values():
            for node in module.tree.body:
                if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
                    places.setdefault(node.name, []).append(module.name)
        return {
            name: modules
            for name, modules in sorted(places.items())
            if len(modules) > 1 and not name.startswith("_") and name != "main"
        }


def imported_names(module: Module) -> Iterator[tuple[int, str]]:
    """Line and full dotted name of everything that a module imports, inside functions too."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = [PACKAGE, *module.name.split(".")] if module.name else [PACKAGE]
                parts = parts[: len(parts) - node.level + module.package]
                base = ".".join([*parts, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{base}.{alias.name}") for alias in node.names)


def _functions(module: Module, node: ast.AST, prefix: str, class_docstring: str) -> Iterator[Measured]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield _measured(module, child, prefix, class_docstring)
            yield from _functions(module, child, f"{prefix}{child.name}.", "")
        elif isinstance(child, ast.ClassDef):
            yield from _functions(module, child, f"{prefix}{child.name}.", ast.get_docstring(child) or "")
        else:
            yield from _functions(module, child, prefix, class_docstring)


def _measured(module: Module, node: Function, prefix: str, class_docstring: str) -> Measured:
    arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    docstring = ast.get_docstring(node) or ""
    if node.name == "__init__":  # documented by its class
        docstring += "\n" + class_docstring
    return Measured(
        module,
        prefix + node.name,
        node.lineno,
        (node.end_lineno or node.lineno) - node.lineno + 1,
        sum(argument.arg not in ("self", "cls") for argument in arguments),
        docstring,
    )


def _from_above(room: str) -> tuple[int, str]:
    return -RANK.get(room, 0), room


def table(house: House) -> str:
    """Rooms with their files, lines and imports, as Markdown."""
    imports = {(arrow.source, arrow.target) for arrow in house.arrows}  # each pair of modules once
    rooms = sorted({module.room for module in house.modules.values()}, key=_from_above)
    lines = ["| room | files | lines | imports | of them within | rooms imported |", "|---|---:|---:|---:|---:|---|"]
    for room in rooms:
        modules = [module for module in house.modules.values() if module.room == room]
        targets = Counter(target.room for source, target in imports if source.room == room)
        others = sorted(set(targets) - {room}, key=_from_above)
        lines.append(
            f"| {room} | {len(modules)} | {sum(module.lines for module in modules)} | {sum(targets.values())} | "
            f"{targets[room]} | {', '.join(others)} |"
        )
    lines.append(
        f"| all | {len(house.modules)} | {sum(module.lines for module in house.modules.values())} | "
        f"{len(imports)} | | |"
    )
    longest = max(house.modules.values(), key=lambda module: module.lines)
    circles = house.circles()
    return "\n".join(
        [
            *lines,
            "",
            f"Longest module: {longest.name}, {longest.lines} lines. Import levels: {house.levels()}. "
            f"Import circles: {len(circles)}{''.join(f'; {circle}' for circle in circles)}.",
        ]
    )


if __name__ == "__main__":
    print(table(House(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT)))
