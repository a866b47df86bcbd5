"""What a layer is called: the path of the torch module that made it, from the names that the exporters leave.

The only owner of that question. Logs of scale groups, the preflight and the reports of engines all print these paths,
and they are what ``--ignore-policy`` and ``check-onnx.py --ignore`` match. Strings only, without onnx, because reports of engines need them too.

| node                                                                 | path              |
|----------------------------------------------------------------------|-------------------|
| weight ``model.model.2.cv1.conv.weight``                             | model.2.cv1.conv  |
| TorchScript, ``/model/model.2/m/m.0/cv1/act/Mul``                    | model.2.m.0.cv1   |
| TorchScript, ``/model/model.2/m/m.0/addop/Add``                      | model.2.m.0.addop |
| dynamo, ``['', 'model', 'model.model.8', 'm', 'model.model.8.m.0', 'cv1', 'act', 'silu']`` | model.8.m.0.cv1 |
| ``Mul_33``: no scopes                                                | Mul_33            |

An activation goes by the block that it belongs to: upstream's blocks share one activation object, so most paths that
end in ``act`` are no modules that a policy could match.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Callable, Iterable, Sequence

from quantization.errors import UserError

if TYPE_CHECKING:
    from onnx import NodeProto

SCOPES = "pkg.torch.onnx.name_scopes"  # dynamo's metadata entry: a Python list of strings, written out
_WEIGHT = ".weight"
_WRAPPER = "model."  # export.ExportOutputs holds the network as ``model``, and so does upstream's network its layers
_ACTIVATION = re.compile(r"\.act(_\d+)?$")  # TorchScript numbers the calls of one module: act, act_1
_STRING = re.compile(r"'([^']*)'")


def module_path(node: NodeProto, weight: str = "") -> str:
    """Path of the torch module that a node was exported from.

    Args:
        node: an ``onnx.NodeProto``.
        weight: name of the tensor that is the layer's weight, where Q/DQ nodes lie between; default: its second input.

    Returns:
        A path such as ``model.2.m.0.cv1.conv``; the node's name, or its operator, where nothing tells the module.
    """
    weight = weight or next(iter(node.input[1:2]), "")
    if weight.endswith(_WEIGHT):
        return _as_upstream(weight[: -len(_WEIGHT)])
    scopes = next((item.value for item in node.metadata_props if item.key == SCOPES), None)
    path = path_of_name(node.name) if scopes is None else path_of_scopes(scopes)
    return path or node.name or node.op_type


def path_of_name(name: str) -> str:
    """Module path from a node's name as the TorchScript exporter writes it; empty if the name has no scopes."""
    return _join(name.split("/")[:-1])


def path_of_scopes(scopes: str) -> str:
    """Module path from dynamo's ``name_scopes`` entry; empty if it has none."""
    return _join(_STRING.findall(scopes)[:-1])


def path_matcher(patterns: Sequence[str], flag: str) -> Callable[[str], bool]:
    """Whether a path, or the path of a module above it, is matched whole by one of the patterns.

    Args:
        patterns: regular expressions.
        flag: for the message, the option that they come from.

    Raises:
        UserError: a pattern is no regular expression.
    """
    expressions = []
    for pattern in patterns:
        try:
            expressions.append(re.compile(pattern))
        except re.error as error:
            raise UserError(f"{flag} {pattern!r} is no regular expression: {error}") from error

    def matches(path: str) -> bool:
        ends = [index for index, letter in enumerate(path) if letter == "."] + [len(path)]
        return any(expression.fullmatch(path, 0, end) for end in ends for expression in expressions)

    return matches


def _join(scopes: Iterable[str]) -> str:
    """Nested scopes as one path. A scope may repeat the container's before it ("m", "m.0") or the whole path."""
    path, last = "", ""
    for scope in filter(None, scopes):
        container = next((name for name in (path, last) if name and scope.startswith(name + ".")), "")
        if container:
            path = path[: -len(container)]
        elif path:
            path += "."
        path, last = path + scope, scope
    return _as_upstream(path)


def _as_upstream(path: str) -> str:
    """A path as the upstream's network has it, without the export's wrapper; an activation's is its block's."""
    if path.startswith(_WRAPPER * 2):
        path = path[len(_WRAPPER) :]
    return _ACTIVATION.sub("", path)
