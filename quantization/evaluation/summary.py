"""summary.json of a run: figures, options, versions; rewritten whenever something is known, so that nothing is lost."""

from __future__ import annotations

import logging
from typing import Any, Iterable

from quantization.distributed import RANKS
from quantization.errors import NotWritten, UserError
from quantization.evaluation.coco import Metrics
from quantization.files import write_json

LOG = logging.getLogger("quantization")


class Summary:
    """What a run found, in a file that is complete after every call.

    A file that cannot be written costs a warning: the next call, and ``finish``, write all of it again.

    Args:
        file: the JSON to write.
        options: of the command, by name.
        versions: of the packages.
        run: id of the run.
        content: of an earlier part of the same run, which is continued; None: this is its start.
    """

    def __init__(
        self,
        file: str,
        options: dict[str, Any],
        versions: dict[str, str],
        run: str = "",
        content: dict[str, Any] | None = None,
    ) -> None:
        self.file = file
        self.content: dict[str, Any] = content or {
            "run": run,
            "stage": "started",
            "options": options,
            "versions": versions,
            "figures": {},
        }
        self._problem: UserError | None = None

    def add(self, **entries: Any) -> None:
        """Write entries at the top level."""
        self.content.update(entries)
        self._write()

    def record(self, label: str, metrics: Metrics, **more: Any) -> None:
        """Write the figures of one model.

        Args:
            label: "float", "ptq" or "qat".
            metrics: what was measured.
            more: entries beside them.
        """
        self.content["figures"][label] = {**metrics.content(), **more}
        self._write()

    def list_failed(self, images: Iterable[str]) -> None:
        """Write the training images that could not be read, beside those of an earlier part of the run."""
        before = self.content.get("images_that_failed", [])
        found = sorted({*before, *images})
        if found != before:
            self.add(images_that_failed=found)

    def figures(self, label: str) -> dict[str, Any]:
        """The figures recorded for one model."""
        found: dict[str, Any] = self.content["figures"][label]
        return found

    def finish(self) -> None:
        """Write all of it, as that of a finished run.

        Raises:
            NotWritten: it cannot be written.
        """
        self.add(stage="finished")
        if self._problem is not None:
            raise NotWritten(f"the run is done, but {self._problem}") from self._problem

    def _write(self) -> None:
        if not RANKS.main:
            return
        try:
            write_json(self.file, self.content)
            self._problem = None
        except UserError as error:
            if self._problem is None:
                LOG.warning("%s; it is tried again, the run goes on", error)
            self._problem = error
