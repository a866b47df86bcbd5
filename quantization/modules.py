"""Old place of the quantized modules: checkpoints of version 0.1 pickle this path. Nothing else may import it."""

from quantization.quantizers.modules import *  # noqa: F403
