"""The pipeline of an ONNX: ranges against torch's calibrators, pairs, files of all kinds, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Callable

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, numpy_helper

from quantization.calibration.group_ranges import GroupCalibrator
from quantization.calibration.joining import end_batch
from quantization.errors import UserError
from quantization.onnx_graph.fp16 import MIN_OPSET as FP16_OPSET
from quantization.onnx_quantize.comparison import compared_tensors, tensor_ratios
from quantization.onnx_quantize.float_model import FloatModel, opset_of
from quantization.onnx_quantize.options import OnnxCalibrationOptions, OnnxGraphOptions
from quantization.onnx_quantize.quantize import OnnxScales, calibrate_onnx, calibration_method, plan_onnx, write_pairs
from quantization.options import LayerOptions
from quantization.preflight.qdq_graph import QdqGraph
from quantization.preflight.report import preflight
from quantization.preflight.subject import float_layers
from quantization.ranges.group_scales import group_scales
from support.float_nets import SIDE, FloatNet, detector, finished, noise

BATCH = 3


def saved(model: onnx.ModelProto, folder: Path) -> str:
    onnx.save(model, str(folder / "net.onnx"))
    return str(folder / "net.onnx")


def quantized(
    file: str, opset: int | None = None, method: str = "mse"
) -> tuple[FloatModel, OnnxScales, onnx.ModelProto]:
    source = FloatModel(file, opset)
    images = noise()
    batches = [images[first : first + BATCH] for first in range(0, len(images), BATCH)]
    planned = plan_onnx(source, source.image_shape(SIDE), LayerOptions())
    found = calibrate_onnx(source, planned, batches, len(images), OnnxCalibrationOptions(method=method))
    return source, found, write_pairs(source, found, OnnxGraphOptions(fp16_remainder=opset == FP16_OPSET))


def ratios(source: FloatModel, found: OnnxScales, model: onnx.ModelProto) -> dict[str, float]:
    models = (source.source, model)
    tensors = compared_tensors(models, found.graph)
    assert len(tensors) == 3  # the output and two maps
    return tensor_ratios(models, source, noise(), tensors)


def run(model: onnx.ModelProto, images: np.ndarray, outputs: list[str] | None = None) -> list[np.ndarray]:
    wider = onnx.ModelProto()
    wider.CopyFrom(model)
    present = {value.name for value in model.graph.output}
    wider.graph.output.extend(
        onnx.helper.make_empty_tensor_value_info(name) for name in outputs or [] if name not in present
    )
    session = onnxruntime.InferenceSession(wider.SerializeToString(), providers=["CPUExecutionProvider"])
    parts = [session.run(outputs, {"images": images[i : i + 1]}) for i in range(len(images))]
    return [np.concatenate(part) for part in zip(*parts)]


@pytest.mark.parametrize("method", ["mse", "max"])
def test_ranges_are_those_of_torchs_calibrators(tmp_path: Path, method: str) -> None:
    source, found, _ = quantized(saved(detector(), tmp_path), method=method)
    assert max(len(scale.own) for scale in found.scales) == 3
    for reads, scale in zip(found.groups, found.scales):
        calibrator = GroupCalibrator(method)
        tensors = list(dict.fromkeys(read.tensor for read in reads))
        values = [torch.from_numpy(value) for value in run(source.model, noise(), tensors)]
        for first in range(0, len(values[0]), BATCH):
            for number, value in enumerate(values):
                calibrator.collect(value[first : first + BATCH].contiguous(), str(number))
            end_batch([calibrator])
        assert group_scales({"g": calibrator})["g"].amax == pytest.approx(scale.amax, rel=1e-6)
        assert [alone for alone in scale.own] == pytest.approx(group_scales({"g": calibrator})["g"].own, rel=1e-6)


def test_pairs_by_hand(tmp_path: Path) -> None:
    """Each planned input and weight is read through one int8 pair with the scale that was found; nothing else is."""
    source, found, model = quantized(saved(detector(), tmp_path))
    makers = {name: node for node in model.graph.node for name in node.output}
    values = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    originals = {tensor.name: numpy_helper.to_array(tensor) for tensor in source.model.graph.initializer}
    amax = {read.tensor: scale.amax for reads, scale in zip(found.groups, found.scales) for read in reads}
    pairs = 0
    for node in model.graph.node:
        for name in node.input:
            dequantize = makers.get(name)
            if dequantize is None or dequantize.op_type != "DequantizeLinear":
                continue
            quantize = makers[dequantize.input[0]]
            tensor, scale, zero = quantize.input
            assert quantize.op_type == "QuantizeLinear" and list(dequantize.input[1:]) == [scale, zero]
            assert values[zero].dtype == np.int8 and not values[zero].any()
            if tensor in originals:
                expected = np.abs(originals[tensor]).reshape(len(originals[tensor]), -1).max(1) / np.float32(127)
                assert values[scale].shape == (len(expected),) and quantize.attribute[0].i == 0
            else:
                expected = np.float32(amax[tensor]) / np.float32(127)
            np.testing.assert_array_equal(values[scale], expected)
            pairs += 1
    assert pairs == len(found.plan.reads(found.graph)) + len(found.plan.weights)
    assert sum(node.op_type == "QuantizeLinear" for node in model.graph.node) == len(amax) + len(found.plan.weights)


def test_result_is_clean_and_close(tmp_path: Path) -> None:
    source, found, model = quantized(saved(detector(), tmp_path))
    report = preflight(model)
    assert not [item.what for item in report.findings if item.severity != "known"]
    assert report.int8_layers == len(found.plan.weights) and report.requantize == 0
    layers = [{found.graph.layer(read.node) for read in reads} for reads in found.groups]
    assert sorted(map(sorted, report.groups)) == sorted(sorted(group) for group in layers if len(group) > 1)
    assert float_layers(model) >= {"model.2.attn.pe.conv", "model.0.conv"}
    (expected,), (actual,) = run(source.source, noise()), run(model, noise())
    error = float(np.square(actual - expected).sum() / np.square(expected - expected.mean((0, 2), keepdims=True)).sum())
    assert error < 0.05  # of what varies from cell to cell; all convolutions but the head are in INT8
    ratio = ratios(source, found, model)
    exact = 10 * np.log10(np.square(expected, dtype=np.float64).sum() / np.square(actual - expected).sum())
    assert ratio[model.graph.output[0].name] == pytest.approx(exact, abs=0.01)


def in_half(model: onnx.ModelProto) -> onnx.ModelProto:
    """In FP16 throughout, as ``export(half=True)`` gives it."""
    for tensor in [
        *model.graph.initializer,
        *(node.attribute[0].t for node in model.graph.node if node.op_type == "Constant"),
    ]:
        if tensor.data_type == TensorProto.FLOAT and "scales" not in tensor.name:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float16), tensor.name))
    for node in model.graph.node:
        if node.op_type == "Resize":  # its scales are FP32 whatever the data
            name = node.input[2]
            constant = next(other for other in model.graph.node if other.output[0] == name)
            constant.attribute[0].t.CopyFrom(numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    return model


def older(model: onnx.ModelProto) -> onnx.ModelProto:
    """Of opset 11, where Split has its sizes as an attribute."""
    constants = {node.output[0]: node for node in model.graph.node if node.op_type == "Constant"}
    for node in model.graph.node:
        if node.op_type == "Split":
            sizes = numpy_helper.to_array(constants[node.input.pop()].attribute[0].t)
            node.attribute.append(onnx.helper.make_attribute("split", sizes.tolist()))
        if node.op_type == "Resize":
            node.input[1] = node.input[2]  # its region, which "nearest" does not look at, may not be left out yet
    model.opset_import[0].version = 11
    onnx.checker.check_model(model)
    return model


def listed(model: onnx.ModelProto) -> onnx.ModelProto:
    """With its weights among the inputs, as exporters before IR version 4 had to."""
    model.graph.input.extend(
        onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        for tensor in model.graph.initializer
    )
    return model


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> list[float]:
    """The ranges of the plain file."""
    return [scale.amax for scale in quantized(saved(detector(), tmp_path_factory.mktemp("plain")))[1].scales]


KINDS = ("fp16", "opset 11", "opset 17", "dynamic", "batch of 4", "external data", "listed", "fp16 listed")


@pytest.mark.parametrize("kind", KINDS)
def test_files_of_all_kinds(tmp_path: Path, reference: list[float], kind: str) -> None:
    """Each gives the scales of the plain file, and a graph that takes what the file took."""
    make: dict[str, Callable[[], onnx.ModelProto]] = {
        "fp16": lambda: in_half(detector()),
        "opset 11": lambda: older(detector()),
        "opset 17": lambda: detector(opset=17),
        "dynamic": lambda: detector("N"),
        "batch of 4": lambda: detector(4),
        "external data": detector,
        "listed": lambda: listed(detector()),
        "fp16 listed": lambda: listed(in_half(detector())),
    }
    file = saved(make[kind](), tmp_path)
    if kind == "external data":
        onnx.save(onnx.load(file), file, save_as_external_data=True, location="net.data", size_threshold=0)
        assert (tmp_path / "net.data").is_file()
    source, found, model = quantized(file)
    is_half = kind.startswith("fp16")
    tolerance = 0.02 if is_half else 1e-5
    assert [scale.amax for scale in found.scales] == pytest.approx(reference, rel=tolerance)
    assert opset_of(model) >= 13 and not preflight(model).failed
    kinds = [value.type.tensor_type.elem_type for value in (*model.graph.input, *model.graph.output)]
    assert kinds == [TensorProto.FLOAT16 if is_half else TensorProto.FLOAT] * 2
    ratio = ratios(source, found, model)
    assert min(ratio.values()) > 18


def test_fp16_remainder(tmp_path: Path) -> None:
    source, found, model = quantized(saved(detector(), tmp_path), FP16_OPSET)
    assert not preflight(model).failed
    weight = next(tensor for tensor in model.graph.initializer if tensor.name.startswith("model.model.0.conv.weight"))
    assert weight.data_type == TensorProto.FLOAT16
    mean = next(tensor for tensor in model.graph.initializer if tensor.name.endswith("_matrix"))
    assert mean.data_type == TensorProto.FLOAT  # the decode stays in FP32, the mean of the distances with it
    assert min(ratios(source, found, model).values()) > 18


def test_refusals(tmp_path: Path) -> None:
    _, _, model = quantized(saved(detector(), tmp_path))
    with pytest.raises(UserError, match="quantized already"):
        FloatModel(saved(model, tmp_path))
    second = detector()
    second.graph.input.append(onnx.helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))
    with pytest.raises(UserError, match="2 inputs"):
        FloatModel(saved(second, tmp_path))
    flat = detector()
    flat.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    flat.graph.node.insert(0, onnx.helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT))
    flat.graph.node[3].input[0] = "pixels"
    with pytest.raises(UserError, match="no image"):
        FloatModel(saved(flat, tmp_path))
    net = FloatNet()
    net.head(net.stem())
    old = finished(net)
    old.opset_import[0].version = 9
    with pytest.raises(UserError, match="opset"):
        FloatModel(saved(old, tmp_path))
    damaged = detector()
    weight = next(tensor for tensor in damaged.graph.initializer if tensor.name == "model.model.5.conv.weight")
    weight.CopyFrom(numpy_helper.from_array(np.full((8, 16, 1, 1), np.nan, np.float32), weight.name))
    with pytest.raises(UserError, match="NaN"):
        quantized(saved(damaged, tmp_path))
    with pytest.raises(UserError, match="sqnr"):
        OnnxCalibrationOptions(method="sqnr")


def test_method_by_the_head() -> None:
    net = FloatNet()
    net.head(net.stem())
    graphs = {"max": QdqGraph(detector()), "mse": QdqGraph(finished(net))}
    for expected, graph in graphs.items():
        assert calibration_method(graph, OnnxCalibrationOptions().method) == expected
        assert calibration_method(graph, "entropy") == "entropy"


def test_metadata_that_is_no_list_of_layers_is_ignored() -> None:
    model = detector()
    for text in ("[1]", "{", json.dumps({"model.5.conv": "policy"})):
        del model.metadata_props[:]
        onnx.helper.set_model_props(model, {"quant-tools.float-layers": text})
        assert float_layers(model) == ({"model.5.conv"} if "policy" in text else set())


def test_pairs_before_activations_against_numpy(tmp_path: Path) -> None:
    """What stands before LeakyReLU in the file is the convolution's output, rounded by its largest magnitude / 127."""
    net = FloatNet()
    x = net.layer("images", "model.0.conv", 3, 8, "LeakyRelu", kernel=3, strides=[2, 2])
    net.head(net.layer(x, "model.1.conv", 8, 4, "LeakyRelu"))
    source = FloatModel(saved(finished(net), tmp_path))
    planned = plan_onnx(source, source.image_shape(SIDE), LayerOptions(activation_pairs="stem"))
    found = calibrate_onnx(source, planned, [noise()], len(noise()), OnnxCalibrationOptions(method="max"))
    model = write_pairs(source, found)
    assert {finding.check: finding.severity for finding in preflight(model).findings} == {
        "image": "known",
        "activation": "known",
    }
    leaky = next(node for node in model.graph.node if node.op_type == "LeakyRelu")
    convolution = next(node for node in model.graph.node if node.op_type == "Conv")
    exact = run(source.model, noise(), [convolution.output[0]])[0]
    before, after = run(model, noise(), [convolution.output[0], leaky.input[0]])
    scale = np.float32(np.abs(exact).max()) / np.float32(127)
    assert np.array_equal(after, np.clip(np.rint(before / scale), -128, 127).astype(np.float32) * scale)
    others = [node for node in model.graph.node if node.op_type == "LeakyRelu"][1:]
    assert [model_input(model, node.input[0]) for node in others] == ["Conv"]


def model_input(model: onnx.ModelProto, tensor: str) -> str:
    """The operator that makes a tensor."""
    return next(node.op_type for node in model.graph.node if tensor in node.output)


def test_a_layer_that_runs_twice_is_named_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """It has two nodes, which are both left in float."""
    net = FloatNet()
    x = net.layer(net.stem(), "model.1.conv", 8, 8, act="Relu")
    weight = net.initializers[-2].name
    x = net.op("Relu", [net.op("Conv", [x, weight], "model.1/conv_1")])
    net.outputs.append((net.layer(net.layer(x, "model.2.conv", 8, 8), "model.3.conv", 8, 8, act=""), 4))
    source = FloatModel(saved(finished(net), tmp_path))
    with caplog.at_level("INFO", "quantization"):
        _, plan = plan_onnx(source, source.image_shape(SIDE), LayerOptions(ignore_policy=(r"model\.1\.conv",)))
    assert list(plan.reasons.values()).count("--ignore-policy") == 2
    (line,) = [message for message in caplog.messages if "--ignore-policy" in message]
    assert line.count("model.1.conv") == 1
