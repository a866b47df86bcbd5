"""From the name of an ONNX node to the path of the module that made it."""

from __future__ import annotations

from ast import literal_eval

from onnx import NodeProto


def module_path(node: NodeProto) -> str:
    """Path of the torch module that a node was exported from, for messages.

    The weight's name says it for a layer with weights. Otherwise it is in the scopes that the exporters write: in the
    node's name (TorchScript: ``/model/model.2/m/m.0/cv1/act/Mul``) or its metadata (dynamo). Both name a module below
    a container by the container's name too, and begin with the ``model`` of export.ExportOutputs.

    Returns:
        A path as ``model.2.m.0.cv1``; the node's name or operator where nothing tells the module.
    """
    weight = next((name for name in node.input[1:2] if name.endswith(".weight")), None)
    if weight is not None:
        path = weight[: -len(".weight")]
    else:
        scopes = [item.value for item in node.metadata_props if item.key == "pkg.torch.onnx.name_scopes"]
        parts = literal_eval(scopes[0]) if scopes else node.name.split("/")
        path, last = "", ""
        for part in filter(None, parts[:-1]):
            container = next((name for name in (path, last) if name and part.startswith(name + ".")), "")
            if container:
                path = path[: -len(container)]
            elif path:
                path += "."
            path, last = path + part, part
    if path.startswith("model.model."):
        path = path[len("model.") :]
    for tail in (".act", ".conv", ".addop"):  # parts of upstream's Conv, and of our shortcut sums
        path = path[: -len(tail)] if path.endswith(tail) else path
    return path or node.name or node.op_type
