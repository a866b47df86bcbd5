"""Python where some packages cannot be imported.

``without.py PACKAGES script FILE ARGUMENTS`` runs a script; ``without.py PACKAGES modules NAME ...`` imports modules
and prints, as JSON, those that fail with the reason. PACKAGES: names with commas between them.
"""

from __future__ import annotations

import importlib
import importlib.abc
import json
import runpy
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Sequence


class Refuse(importlib.abc.MetaPathFinder):
    """A finder that refuses packages and what is in them."""

    def __init__(self, packages: Sequence[str]) -> None:
        self.packages = packages

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Refuse, or leave the module to the other finders."""
        if fullname.split(".")[0] in self.packages:
            raise ImportError(f"{fullname} is refused here", name=fullname)
        return None


def failures(names: Sequence[str]) -> dict[str, str]:
    """Modules that do not import, with the reason."""
    found = {}
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            found[name] = str(error)
    return found


def main(packages: str, action: str, arguments: list[str]) -> None:
    """Do what the command line says."""
    sys.meta_path.insert(0, Refuse(packages.split(",")))
    if action == "modules":
        sys.path.insert(0, ".")
        print(json.dumps(failures(arguments)))
    else:
        sys.argv = arguments
        sys.path[0] = str(Path(arguments[0]).resolve().parent)
        runpy.run_path(arguments[0], run_name="__main__")


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3:])
