"""What the operators of a graph are to TensorRT's INT8: layers with weights, pointwise layers, pooling."""

from __future__ import annotations

WEIGHTED = {"Conv", "ConvTranspose", "Gemm", "MatMul"}
CONVOLUTIONS = {"Conv", "ConvTranspose"}
QDQ = {"QuantizeLinear", "DequantizeLinear"}
POOLING = {"AveragePool", "GlobalAveragePool", "ReduceMean"}
POINTWISE = {
    "Abs",
    "Add",
    "Cast",
    "Celu",
    "Clip",
    "Div",
    "Elu",
    "Erf",
    "Exp",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "LeakyRelu",
    "Log",
    "Max",
    "Min",
    "Mish",
    "Mul",
    "Neg",
    "PRelu",
    "Pow",
    "Reciprocal",
    "Relu",
    "Selu",
    "Sigmoid",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Sub",
    "Swish",
    "Tanh",
    "ThresholdedRelu",
    "Where",
}
ACTIVATIONS = POINTWISE - {"Add"}  # a quantized sum of two convolutions is a layer of its own
APART = {"Tanh"}  # what a float convolution does not take into its kernel (onnx_graph.cleanup.respell_float_silu)
