"""Memory that runs out is named; other errors pass."""

from __future__ import annotations

import pytest
import torch

from quantization.memory import OutOfMemory, named_stage


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("cuDNN error: out of memory\nmore"),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes"),
        MemoryError(),
    ],
)
def test_memory_that_runs_out_names_stage_and_options(error: Exception) -> None:
    with pytest.raises(OutOfMemory, match=r"^QAT ran out of memory with --batch-size 8 \(.*--amp") as caught:
        with named_stage("QAT", 8, training=True):
            raise error
    assert "\n" not in str(caught.value) and caught.value.code == 2
    with pytest.raises(OutOfMemory, match=r"^export ran out of memory \(.*smaller --size$"):
        with named_stage("export"):
            raise error


def test_the_host_allocator_says_so() -> None:
    with pytest.raises(OutOfMemory):
        with named_stage("test", 1):
            torch.empty(2**50)


@pytest.mark.parametrize("error", [RuntimeError("shapes do not fit"), ValueError("out of memory"), KeyError("x")])
def test_other_errors_pass(error: Exception) -> None:
    with pytest.raises(type(error)), named_stage("test", 1):
        raise error
