"""Which convolutions read the image, in damaged files too."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from quantization.preflight.qdq_graph import QdqGraph
from quantization.preflight.subject import stem_convolutions


@pytest.mark.parametrize(
    ("shape", "found"), [((8, 3, 3, 3), {0}), ((8, 12, 3, 3), set()), ((8,), set()), ((8, 3), set())]
)
def test_only_a_convolution_of_few_channels_reads_the_image(shape: tuple[int, ...], found: set[int]) -> None:
    images = helper.make_tensor_value_info("images", TensorProto.FLOAT, None)
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    weight = numpy_helper.from_array(np.ones(shape, np.float32), "w")
    node = helper.make_node("Conv", ["images", "w"], ["y"], strides=[2, 2])
    graph = QdqGraph(helper.make_model(helper.make_graph([node], "g", [images], [output], [weight])))
    assert stem_convolutions(graph) == found
