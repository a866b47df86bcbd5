"""Seconds to find the scale groups, next to a matcher that scans all nodes for every look-up.

    python benchmarks/group_speed.py --upstream yolov7 --checkout path/to/yolov7 --net cfg/training/yolov7x.yaml

The published matcher walks a Q/DQ ONNX and finds each node's producer and consumers by going through all nodes. Its cost
is reproduced here: for every Concat and MaxPool, which convolutions quantize the tensors around it?
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any, Callable, Sequence

import bundle  # noqa: F401  # puts quantization on the import path
from architectures import CLASSES, CONFIGURATIONS
from random_net import random_net

from quantization.calibration.calibrate import calibrate_model
from quantization.onnx_graph.graph import OnnxGraph
from quantization.placement.insert import replace_to_quantization_module
from quantization.placement.scale_groups import find_marked_classes
from quantization.upstream.checkout import enter_checkout


class Scanner:
    """Look-ups without an index; ``visits`` counts the nodes looked at."""

    def __init__(self, nodes: Sequence[Any]) -> None:
        self.nodes, self.visits = list(nodes), 0

    def producer(self, name: str) -> Any:
        """The node that writes a tensor; None for an input or a constant."""
        for node in self.nodes:
            self.visits += 1
            if name in node.output:
                return node
        return None

    def consumers(self, name: str) -> list[Any]:
        """The nodes that read a tensor."""
        self.visits += len(self.nodes)
        return [node for node in self.nodes if name in node.input]


def quantizing_convs(scanner: Scanner, tensor: str) -> list[str]:
    """Weight names of the convolutions that quantize ``tensor``: Q, DQ, Conv, and back by the weight's DQ and Q."""
    names = []
    for quantize in scanner.consumers(tensor):
        if quantize.op_type != "QuantizeLinear":
            continue
        for dequantize in scanner.consumers(quantize.output[0]):
            for conv in scanner.consumers(dequantize.output[0]):
                weight = scanner.producer(conv.input[1]) if conv.op_type == "Conv" else None
                source = scanner.producer(weight.input[0]) if weight is not None else None
                if source is not None:
                    names.append(source.input[0])
    return names


def scan_pairs(scanner: Scanner) -> list[tuple[str, str]]:
    """Pairs of convolutions on either side of a Concat or MaxPool."""
    pairs = []
    for node in scanner.nodes:
        if node.op_type in ("Concat", "MaxPool"):
            behind = quantizing_convs(scanner, node.output[0])
            before = [name for tensor in node.input for name in quantizing_convs(scanner, tensor)]
            pairs += [(first, second) for first in before for second in behind]
    return pairs


def median_seconds(action: Callable[[], object], rounds: int = 5) -> float:
    """Median duration of a call."""
    times = []
    for _ in range(rounds):
        begin = time.perf_counter()
        action()
        times.append(time.perf_counter() - begin)
    return statistics.median(times)


def write_graphs(net: str, folder: str) -> tuple[str, str]:
    """Write a network's marked ONNX, from which groups are found, and its Q/DQ ONNX; the two files."""
    import onnx
    import torch

    from quantization import quantize
    from quantization.export.export import export_onnx
    from quantization.export.graph import export_graph
    from quantization.options import ExportOptions
    from quantization.placement.scale_groups import find_scale_groups
    from quantization.upstream import model as upstream

    model = upstream.fuse(random_net(net, CLASSES))
    size = 2 * int(model.stride.max())
    quantize.initialize("native")
    replace_to_quantization_module(model)
    marked, quantized = os.path.join(folder, "marked.onnx"), os.path.join(folder, "quantized.onnx")

    def write(part: Any) -> Any:
        graph = export_graph(part, ExportOptions((size,)))
        onnx.save(graph, marked)
        return graph

    find_scale_groups(model, write)
    calibrate_model(model, [torch.rand(2, 3, size, size)], "max")
    export_onnx(model, quantized, ExportOptions((size,)))
    return marked, quantized


def main() -> None:
    """Print the figures of one network."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--upstream", choices=sorted(CONFIGURATIONS), required=True)
    parser.add_argument("--checkout", type=Path, required=True)
    parser.add_argument("--net", required=True, help="configuration file, relative to the checkout")
    options = parser.parse_args()
    os.chdir(options.checkout)
    enter_checkout(options.upstream, Path.cwd())
    import onnx

    with tempfile.TemporaryDirectory() as folder:
        marked_file, quantized_file = write_graphs(options.net, folder)
        reading = median_seconds(lambda: onnx.load(marked_file), 3)
        marked, quantized = onnx.load(marked_file), onnx.load(quantized_file)
    groups = find_marked_classes(OnnxGraph(marked))
    scanner = Scanner(quantized.graph.node)
    pairs = scan_pairs(scanner)
    visits = scanner.visits
    finding = median_seconds(lambda: find_marked_classes(OnnxGraph(marked)))
    scanning = median_seconds(lambda: scan_pairs(Scanner(quantized.graph.node)), 3)
    print(
        f"\n{options.net}: marked graph of {len(marked.graph.node)} nodes, Q/DQ graph of {len(quantized.graph.node)}\n"
        f"reading the marked ONNX {reading:.3f} s (weights included), finding {len(groups)} groups {finding:.4f} s\n"
        f"scanning matcher {scanning:.3f} s for {len(pairs)} pairs, {visits} nodes looked at\n"
        f"ratio {scanning / finding:.0f}"
    )


if __name__ == "__main__":
    main()
