"""Work on several engines of which some fail, so that the others go on."""

from __future__ import annotations

from typing import Any, Callable, Mapping, TypeVar

from quantization.errors import UserError

Found = TypeVar("Found")


class Survivors:
    """The engines that have not failed.

    An error of one engine leaves the others, except one that ends CUDA for the whole process, such as an illegal memory
    access: then nothing more is tried.

    Args:
        is_lost: whether nothing more can run in this process.

    Attributes:
        problems: name of an engine that failed, or came too late, to the reason.
        ended_by: name of the engine that ended it for all; None: none has.
    """

    def __init__(self, is_lost: Callable[[], bool] = lambda: False) -> None:
        self.problems: dict[str, str] = {}
        self.ended_by: str | None = None
        self._is_lost = is_lost

    def attempt(self, name: str, work: Callable[[], Found]) -> Found | None:
        """What ``work`` on an engine gives; None if it fails, or the engine has failed, or all has ended."""
        if not self.runs(name):
            self.leave_out(name)
            return None
        found = None
        try:
            found = work()
        except UserError as error:
            own = f"{name}: "  # an engine's errors start with its name, and so does the line that they are printed in
            text = str(error)
            self.problems[name] = text[len(own) :] if text.startswith(own) else text
            print(f"{name}: FAILED: {self.problems[name]}", flush=True)
        self.look(name)
        return found

    def look(self, name: str, reason: str = "") -> None:
        """After work on an engine, which may have failed for that reason: find out whether it has ended CUDA."""
        if self.ended_by is None and self._is_lost():
            self.ended_by = name
            self.problems.setdefault(name, reason or "after its run CUDA answers with errors only")

    def runs(self, name: str) -> bool:
        """Whether an engine still runs."""
        return self.ended_by is None and name not in self.problems

    def leave_out(self, name: str) -> None:
        """Say of an engine that it came too late."""
        self.problems.setdefault(name, f"not run, since {self.ended_by} ended CUDA for this process")


def ending_lines(report: Mapping[str, Any], remedy: str) -> list[str]:
    """What to do about an engine, the report's "ended_by", that left the others without CUDA."""
    name = report.get("ended_by")
    if name is None:
        return []
    return [f"After the error of {name} CUDA works in a new process only, so the run ended there: {remedy}"]
