"""Whether two ONNX files hold the same graph, node for node: operators, inputs, outputs, attributes, constants.

    python benchmarks/same_graph.py before.onnx after.onnx

Prints the first differences and exits with 1 if there are any.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path
from typing import Any, Iterable, Iterator, Sequence

import onnx
from onnx import NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from quantization.errors import UserError, run_main

SHOWN = 10


def value_of(tensor: TensorProto) -> tuple[Any, ...]:
    """Type, shape and bytes of a tensor."""
    array = numpy_helper.to_array(tensor)
    return array.dtype.str, array.shape, array.tobytes()


def attributes(node: NodeProto) -> dict[str, Any]:
    """A node's attributes by name, tensors by value."""
    values = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    return {name: value_of(value) if isinstance(value, TensorProto) else value for name, value in values.items()}


def signature(values: Iterable[ValueInfoProto]) -> list[tuple[str, bytes]]:
    """Names and types of a graph's inputs or outputs."""
    return [(value.name, value.type.SerializeToString(deterministic=True)) for value in values]


def differences(first: onnx.ModelProto, second: onnx.ModelProto) -> Iterator[str]:
    """A line for each difference.

    Args:
        first: a model.
        second: what is compared with it.
    """
    opsets = [sorted((opset.domain, opset.version) for opset in model.opset_import) for model in (first, second)]
    if opsets[0] != opsets[1]:
        yield f"operator sets: {opsets[0]} against {opsets[1]}"
    for kind in ("input", "output"):
        before, after = (signature(getattr(model.graph, kind)) for model in (first, second))
        if before != after:
            yield f"{kind}s of the graph: {[name for name, _ in before]} against {[name for name, _ in after]}, or types"
    for number, (a, b) in enumerate(itertools.zip_longest(first.graph.node, second.graph.node)):
        if a is None or b is None:
            yield f"nodes: {len(first.graph.node)} against {len(second.graph.node)}"
            break
        where = f"node {number}, {a.name or a.op_type}"
        for field in ("op_type", "domain", "name", "input", "output"):
            before, after = getattr(a, field), getattr(b, field)
            if before != after:
                yield f"{where}: {field} {before} against {after}"
        if attributes(a) != attributes(b):
            yield f"{where}: attributes differ"
    tensors = [{tensor.name: value_of(tensor) for tensor in model.graph.initializer} for model in (first, second)]
    for name in sorted(set(tensors[0]) | set(tensors[1])):
        if tensors[0].get(name) != tensors[1].get(name):
            kinds = [str(found[name][:2]) if name in found else "missing" for found in tensors]
            yield f"initializer {name}: {kinds[0]} against {kinds[1]}"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    options = parser.parse_args(arguments)
    for file in (options.first, options.second):
        if not file.is_file():
            raise UserError(f"{file} does not exist")
    found = list(differences(onnx.load(options.first), onnx.load(options.second)))
    for line in found[:SHOWN]:
        print(line)
    if len(found) > SHOWN:
        print(f"... and {len(found) - SHOWN} more")
    print(f"{options.first} and {options.second}: {len(found)} differences" if found else "equal, node for node")
    return 1 if found else 0


if __name__ == "__main__":
    run_main(main)
