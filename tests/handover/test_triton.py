"""config.pbtxt read by protobuf's own text format, with the fields of Triton's model_config.proto that it uses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import onnx
import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, text_format

from quantization.handover.facts import network_facts
from quantization.handover.triton import write_triton
from support.handover_net import net

FIELD = descriptor_pb2.FieldDescriptorProto
# names and types as in triton-inference-server/common, protobuf/model_config.proto; text format knows no numbers.
# `benchmarks/triton_schema.py` checks a file against the whole schema.
MESSAGES: dict[str, dict[str, tuple[str, bool]]] = {
    "Tensor": {"name": ("STRING", False), "data_type": ("DataType", False), "dims": ("INT64", True)},
    "InstanceGroup": {"kind": ("Kind", False), "count": ("INT32", False)},
    "Batching": {},
    "ModelConfig": {
        "name": ("STRING", False),
        "backend": ("STRING", False),
        "default_model_filename": ("STRING", False),
        "max_batch_size": ("INT32", False),
        "input": ("Tensor", True),
        "output": ("Tensor", True),
        "instance_group": ("InstanceGroup", True),
        "dynamic_batching": ("Batching", False),
    },
}
ENUMS = {"DataType": ("TYPE_INVALID", "TYPE_FP16", "TYPE_FP32", "TYPE_INT32", "TYPE_INT64"), "Kind": ("KIND_GPU",)}


@pytest.fixture(scope="module")
def config_type() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="subset.proto", package="inference", syntax="proto3")
    for name, values in ENUMS.items():
        kind = file.enum_type.add(name=name)
        for number, value in enumerate(values):
            kind.value.add(name=value, number=number)
    for name, fields in MESSAGES.items():
        message = file.message_type.add(name=name)
        for number, (field, (type_name, repeated)) in enumerate(fields.items(), 1):
            entry = message.field.add(name=field, number=number)
            entry.label = FIELD.LABEL_REPEATED if repeated else FIELD.LABEL_OPTIONAL
            if type_name in MESSAGES or type_name in ENUMS:
                entry.type = FIELD.TYPE_MESSAGE if type_name in MESSAGES else FIELD.TYPE_ENUM
                entry.type_name = f".inference.{type_name}"
            else:
                entry.type = getattr(FIELD, f"TYPE_{type_name}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("inference.ModelConfig"))


def written(folder: Path, config_type: Any, graph: onnx.ModelProto, batch: int) -> Any:
    facts = network_facts(graph, ["ant", "bee", "猫"], False)
    files = write_triton(folder / "models", "net", graph, facts, batch)
    names = ["config.pbtxt", "labels.txt", "1/model.onnx"]
    assert files == [folder / "models" / "net" / name for name in names]
    assert files[1].read_text(encoding="utf-8") == "ant\nbee\n猫\n"
    assert onnx.load(str(files[2])) == graph
    return text_format.Parse(files[0].read_text(encoding="utf-8"), config_type())


def tensors(entries: Any) -> list[tuple[str, str, list[int]]]:
    return [(entry.name, ENUMS["DataType"][entry.data_type], list(entry.dims)) for entry in entries]


def test_a_fixed_batch_is_part_of_the_shapes(tmp_path: Path, config_type: Any) -> None:
    config = written(tmp_path, config_type, net(4), batch=4)
    assert (config.name, config.backend, config.default_model_filename) == ("net", "tensorrt", "model.plan")
    assert config.max_batch_size == 0 and not config.HasField("dynamic_batching")
    assert tensors(config.input) == [("images", "TYPE_FP32", [4, 3, 192, 320])]
    assert tensors(config.output) == [("outputs", "TYPE_FP32", [4, 2520, 8])]


def test_an_open_batch_is_not_and_requests_are_joined(tmp_path: Path, config_type: Any) -> None:
    config = written(tmp_path, config_type, net("batch", suppressed=True), batch=16)
    assert config.max_batch_size == 16 and config.HasField("dynamic_batching")
    assert tensors(config.input) == [("images", "TYPE_FP32", [3, 192, 320])]
    assert tensors(config.output) == [
        ("num_dets", "TYPE_INT32", [1]),
        ("det_boxes", "TYPE_FP32", [100, 4]),
        ("det_scores", "TYPE_FP32", [100]),
        ("det_classes", "TYPE_INT32", [100]),
    ]
    assert not written(tmp_path / "one", config_type, net("batch"), batch=1).HasField("dynamic_batching")
