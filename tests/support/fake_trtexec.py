"""A trtexec of TensorRT 8.5.2: twice as fast with a plan whose path holds "qat"; calls.txt beside it gets every call."""

import pathlib
import sys

flags = dict([*text.split("=", 1), ""][:2] for text in sys.argv[1:])
print("&&&& RUNNING TensorRT.trtexec [TensorRT v8502] # trtexec")
if "--help" in flags:
    sys.exit(0)
if "--builderOptimizationLevel" in flags or "--skipInference" in flags:
    print("[08/25/2023-20:38:49] [E] Unknown option: new in 8.6")
    sys.exit(1)
log = pathlib.Path(sys.argv[0]).with_name("calls.txt")
log.open("a").write(" ".join(sys.argv[1:]) + "\n")
if "--saveEngine" in flags:
    pathlib.Path(flags["--saveEngine"]).write_bytes(b"plan")
else:
    qps = 200.0 if "qat" in flags["--loadEngine"] else 100.0
    print("[08/25/2023-20:38:49] [I] Selected Device: Orin")
    print("[08/25/2023-20:38:49] [I] Created input binding for images with dimensions 16x3x640x640")
    print(f"[08/25/2023-20:38:49] [I] Throughput: {qps:g} qps")
    print(
        f"[08/25/2023-20:38:49] [I] Latency: min = 1 ms, max = 99 ms, mean = 7 ms, median = {1000 / qps:g} ms, "
        "percentile(90%) = 50 ms, percentile(95%) = 60 ms, percentile(99%) = 70 ms"
    )
    print("[08/25/2023-20:38:49] [I] H2D Latency: min = 0 ms, max = 0 ms, mean = 0 ms, median = 0.5 ms")
