"""Old place of the native quantizer: checkpoints of version 0.1 pickle this path. Nothing else may import it."""

from quantization.quantizers.native import QuantDescriptor, TensorQuantizer  # noqa: F401
