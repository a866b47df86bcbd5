"""What a process of several tells the others when it fails."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass

from quantization.errors import UserError
from quantization.signals import Stopped


@dataclass(frozen=True)
class Failure:
    """What a rank gives to the others when it fails.

    Attributes:
        code: its exit code.
        message: one line.
        signal: number of the signal that stopped it; 0: none did.
    """

    code: int
    message: str
    signal: int = 0


class PeerFailed(UserError):
    """Another rank has failed, with this exit code."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


def end_process(rank: int, failure: Failure) -> None:
    """End this process though the others have not heard why; torchrun ends them."""
    print(f"error: process {rank}: {failure.message}", file=sys.__stderr__, flush=True)
    os._exit(failure.code)


def failure_of(error: BaseException) -> Failure:
    """What the others are told of an error."""
    if isinstance(error, UserError):
        return Failure(error.code, str(error))
    if isinstance(error, Stopped):
        return Failure(error.code, str(error), error.number)
    if isinstance(error, SystemExit):  # argparse
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        return Failure(code, "the command line is refused")
    return Failure(1, f"{type(error).__name__}: {error}")
