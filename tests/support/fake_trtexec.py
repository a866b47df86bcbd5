"""Stands in for trtexec of TensorRT 8.5: times float engines at 100 qps, quantized ones at 200.

It builds an empty plan, but none of a "broken" model, and does not run a plan whose name has "crashing" in it. A test copies it to an executable file; calls are noted in
calls.txt beside it.
"""

from __future__ import annotations

import sys
from pathlib import Path

STAMP = "[08/25/2023-20:38:49]"


def main(program: str, arguments: list[str]) -> None:
    """Build, or print what trtexec prints when it times."""
    flags = {flag: value for flag, _, value in (text.partition("=") for text in arguments)}
    print("&&&& RUNNING TensorRT.trtexec [TensorRT v8502] # trtexec")
    if "--help" in flags:
        return
    if "--builderOptimizationLevel" in flags or "--skipInference" in flags:
        print(f"{STAMP} [E] Unknown option: new in 8.6")
        sys.exit(1)
    if "broken" in flags.get("--onnx", ""):
        print(f"{STAMP} [E] ModelImporter.cpp: no importer for this operator")
        sys.exit(1)
    with open(Path(program).with_name("calls.txt"), "a", encoding="utf-8") as calls:
        calls.write(" ".join(arguments) + "\n")
    if "--saveEngine" in flags:
        Path(flags["--saveEngine"]).write_bytes(b"plan")
        return
    if "crashing" in flags["--loadEngine"]:
        print(f"{STAMP} [E] Cuda failure: an illegal memory access was encountered")
        sys.exit(1)
    qps = 200.0 if "qat" in flags["--loadEngine"] else 100.0
    print(f"{STAMP} [I] Selected Device: Orin")
    print(f"{STAMP} [I] Created input binding for images with dimensions 16x3x640x640")
    print(f"{STAMP} [I] Throughput: {qps:g} qps")
    print(
        f"{STAMP} [I] Latency: min = 1 ms, max = 99 ms, mean = 7 ms, median = {1000 / qps:g} ms, "
        "percentile(90%) = 50 ms, percentile(95%) = 60 ms, percentile(99%) = 70 ms"
    )
    print(f"{STAMP} [I] H2D Latency: min = 0 ms, max = 0 ms, mean = 0 ms, median = 0.5 ms")


if __name__ == "__main__":
    main(sys.argv[0], sys.argv[1:])
