"""Memory that runs out, on a GPU or the host: which stage it was, and which options help."""

from __future__ import annotations

import contextlib
from typing import Iterator

from quantization.errors import UserError

MARKS = ("out of memory", "can't allocate memory", "not enough memory")  # CUDA and cuDNN; torch's host allocator


class OutOfMemory(UserError):
    """Memory ran out; with other options, or on another machine, it may not."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out; torch.cuda.OutOfMemoryError is a RuntimeError that says so."""
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and any(m in str(error) for m in MARKS))


@contextlib.contextmanager
def named_stage(stage: str, batch_size: int | None = None, training: bool = False) -> Iterator[None]:
    """Context in which memory that runs out is an error that names the stage.

    Args:
        stage: "QAT", say.
        batch_size: images per batch; None: there is no option for it.
        training: whether ``--amp`` matters.

    Raises:
        OutOfMemory: memory ran out.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        reason = (str(error).splitlines() or [type(error).__name__])[0][:160].rstrip(". ")
        size = "" if batch_size is None else f" with --batch-size {batch_size}"
        options = "a smaller --size" if batch_size is None else "a smaller --batch-size or --imgsz"
        amp = ", or --amp fp16 or bf16 (on a GPU)" if training else ""
        raise OutOfMemory(f"{stage} ran out of memory{size} ({reason}): give {options}{amp}") from error
