"""tune.json: what a tuning run has measured so far, so that one that was interrupted goes on."""

from __future__ import annotations

import json
import os
from typing import Any, Mapping

from quantization.errors import UserError
from quantization.files import sweep, write_json
from quantization.text import read_json

FORMAT = 1
RECORD_FILE = "tune.json"


class TuneRecord:
    """Figures with the keys that say what they were measured with.

    Args:
        file: written after each change, complete or not at all.
        engines: name to what is known of an engine.
        timing: "key" and "figures" of the last timing.
    """

    def __init__(self, file: str, engines: dict[str, Any], timing: dict[str, Any]) -> None:
        self.file, self._engines, self._timing = file, engines, timing

    @classmethod
    def read(cls, folder: str) -> TuneRecord:
        """That of a folder; an empty one, if there is none.

        Raises:
            UserError: the file is damaged, or a newer version wrote it.
        """
        file = os.path.join(folder, RECORD_FILE)
        sweep(file)
        if not os.path.isfile(file):
            return cls(file, {}, {})
        content = read_json(file, "--tune")
        engines, timing = (content.get("engines"), content.get("timing")) if isinstance(content, dict) else (None, None)
        if not isinstance(engines, dict) or not isinstance(timing, dict) or content.get("format") != FORMAT:
            raise UserError(f"--tune {file} is damaged, or of another version: delete it, the plans beside it stay")
        return cls(file, engines, timing)

    def keep_engine(self, entry: Mapping[str, Any]) -> None:
        """Keep what is known of an engine."""
        self._engines[entry["name"]] = dict(entry)
        self._write()

    def keep_figures(self, key: Mapping[str, Any], figures: Mapping[str, Any]) -> None:
        """Keep the figures of one timing, of all engines."""
        self._timing = {"key": dict(key), "figures": dict(figures)}
        self._write()

    def accuracy(self, name: str, key: Mapping[str, Any]) -> dict[str, Any] | None:
        """The accuracy of an engine, if it was measured with all that this key names."""
        entry = self._engines.get(name)
        found = entry.get("accuracy") if isinstance(entry, dict) else None
        if not isinstance(found, dict) or not isinstance(found.get("key"), dict) or "map" not in found:
            return None
        return dict(found) if {**found["key"], **_as_json(key)} == found["key"] else None

    def ending(self, name: str, key: Mapping[str, Any]) -> str | None:
        """Why an engine ended CUDA for the process that ran it with all that this key names; None: it did not."""
        entry = self._engines.get(name)
        found = entry.get("ended") if isinstance(entry, dict) else None
        return str(found.get("why")) if isinstance(found, dict) and found.get("key") == _as_json(key) else None

    def figures(self, key: Mapping[str, Any]) -> dict[str, Any] | None:
        """The figures of these engines, if they were timed with this key."""
        found = self._timing.get("figures")
        known = self._timing.get("key") == _as_json(key) and isinstance(found, dict) and set(found) == set(key["plans"])
        return found if known else None

    def _write(self) -> None:
        write_json(self.file, {"format": FORMAT, "engines": self._engines, "timing": self._timing})


def _as_json(value: Any) -> Any:
    """As it comes back from the file: tuples are lists."""
    return json.loads(json.dumps(value))
