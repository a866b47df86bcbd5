"""What can be left in float by itself: a scale group and the weights of the modules that it feeds."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from quantization.quantizers.backend import is_enabled, named_quantizers, set_enabled
from quantization.quantizers.modules import ShortcutBlock
from quantization.union_find import UnionFind


@dataclass(frozen=True)
class Unit:
    """Quantizers that are left in float together.

    Attributes:
        modules: paths for ``--ignore-policy``, in the order of the model.
        holders: paths of the modules whose outputs hold the error: a block with a sum as a whole, since a quantizer in
            it rounds what another one has moved, and values that lie close together (behind SiLU) then round otherwise.
        quantizers: the enabled quantizers of those modules, each once.
    """

    modules: tuple[str, ...]
    holders: tuple[str, ...]
    quantizers: tuple[nn.Module, ...]

    def __str__(self) -> str:
        return ", ".join(self.modules)

    def set_float(self, on: bool) -> None:
        """Switch the unit's quantizers off, or on again."""
        for quantizer in self.quantizers:
            set_enabled(quantizer, not on)


def find_units(model: nn.Module) -> list[Unit]:
    """The units of a model, in its order; quantizers that are disabled belong to none.

    Modules that share a quantizer are in one unit. So are a block's sum and the modules below that block, because
    ``--ignore-policy`` cannot name the sum without the block.
    """
    joined = UnionFind()
    blocks = tuple(path for path, module in model.named_modules() if isinstance(module, ShortcutBlock))
    places: list[tuple[str, str, nn.Module]] = []  # module of the policy, holder, quantizer
    for path, _, module, quantizer in named_quantizers(model):
        if not is_enabled(quantizer):
            continue
        block = next((block for block in blocks if path.startswith(block + ".")), path)
        policy = block if path == f"{block}.addop" else path  # the sum is no module of the float model
        places.append((policy, block, quantizer))
        joined.join(policy, str(id(quantizer)))
        joined.join(policy, block)
    units: dict[str, list[tuple[str, str, nn.Module]]] = {}
    for place in places:
        units.setdefault(joined.find(place[0]), []).append(place)
    return [Unit(*(tuple(dict.fromkeys(column)) for column in zip(*found))) for found in units.values()]
