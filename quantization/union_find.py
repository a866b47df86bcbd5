"""Disjoint sets."""

from __future__ import annotations

from typing import Sequence


class UnionFind:
    """Disjoint sets of names, with path halving."""

    def __init__(self) -> None:
        self.parent: dict[str, str] = {}

    def find(self, name: str) -> str:
        """The name that stands for the set of ``name``; a new name is a set of its own."""
        parent = self.parent
        parent.setdefault(name, name)
        while parent[name] != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    def join(self, a: str, b: str) -> None:
        """Make one set of the two that hold ``a`` and ``b``."""
        self.parent[self.find(a)] = self.find(b)

    def join_all(self, names: Sequence[str]) -> None:
        """Make one set of all that hold one of ``names``."""
        for name in names[1:]:
            self.join(names[0], name)
