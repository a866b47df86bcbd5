"""summary.json of a run: figures, options, versions; rewritten whenever something is known, so that nothing is lost."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from quantization.evaluation.coco import Metrics
from quantization.files import write_json


class Summary:
    """What a run found, in a file that is complete after every call.

    Args:
        file: the JSON to write.
        options: of the command, by name.
        versions: of the packages.
    """

    def __init__(self, file: str, options: dict[str, Any], versions: dict[str, str]) -> None:
        self.file = file
        self._content: dict[str, Any] = {"options": options, "versions": versions, "figures": {}}

    def add(self, **entries: Any) -> None:
        """Write entries at the top level."""
        self._content.update(entries)
        write_json(self.file, self._content)

    def record(self, label: str, metrics: Metrics, **more: Any) -> None:
        """Write the figures of one model.

        Args:
            label: "float", "ptq" or "qat".
            metrics: what was measured.
            more: entries beside them.
        """
        self._content["figures"][label] = {**asdict(metrics), **more}
        write_json(self.file, self._content)

    def figures(self, label: str) -> dict[str, Any]:
        """The figures recorded for one model."""
        found: dict[str, Any] = self._content["figures"][label]
        return found
