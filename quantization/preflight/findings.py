"""What the checks of a Q/DQ ONNX give."""

from __future__ import annotations

from dataclasses import dataclass, field

SEVERITIES = ("fail", "warn", "known")


@dataclass
class Finding:
    """A hazard and its mitigation.

    Attributes:
        check: name of the check.
        severity: "fail": costs a kernel or the build, and can be fixed; "warn": costs accuracy, nothing in the engine,
            or time in some versions of TensorRT; "known": costs a kernel that the network or the policy asks for.
        what: one line: what is there, and what TensorRT does about it.
        change: what to do.
        layers: the layers concerned.
        tensors: the tensors concerned, as the ONNX has them.
        kernels: kernels that TensorRT inserts.
        elements: activation elements that these kernels pass, or that stay float; 0 if unknown.
    """

    check: str
    severity: str
    what: str
    change: str
    layers: list[str] = field(default_factory=list)
    tensors: list[str] = field(default_factory=list)
    kernels: int = 0
    elements: int = 0


def some(names: list[str], most: int = 4) -> str:
    """Names for a line of text, the first few of many."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
