"""Optimization profiles of an engine: TensorRT lists the layers of every one of them.

The first profile has plain names; ``[profile K]`` ends the names of layers, tensors and bindings of the K-th after it.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from quantization.errors import UserError
from quantization.inspector.names import counted, words
from quantization.inspector.records import EngineInfo, Layer, Tensor

_SUFFIX = re.compile(r" ?\[profile (\d+)\]")


def profile_of(name: str) -> int:
    """Number of the optimization profile that a layer, tensor or binding belongs to."""
    found = _SUFFIX.search(name)
    return int(found.group(1)) if found else 0


def select_profile(engine: EngineInfo, index: int | None, path: Path, rename: bool = True) -> EngineInfo:
    """The layers of one optimization profile, with the names that they would have in an engine without others.

    Args:
        engine: with the layers of all profiles.
        index: number of the profile; None: the first, with a note if there are others.
        path: the file, for messages.
        rename: whether the engine's name says which profile it is, where it is not the first.

    Raises:
        UserError: there is no such profile.
    """
    numbers = sorted({profile_of(layer.name) for layer in engine.layers})
    wanted = numbers[0] if index is None else index
    if wanted not in numbers:
        listed = f"{words([str(number) for number in numbers])}"
        raise UserError(
            f"{path} has {counted(len(numbers), 'optimization profile')}: --profile-index takes {listed}, not {wanted}"
        )
    if numbers == [0]:
        return engine
    notes = list(engine.notes)
    if index is None and len(numbers) > 1:
        notes.append(
            f"{path} has {len(numbers)} optimization profiles, of which number {wanted} is shown: --profile-index "
            "takes another"
        )
    layers = [layer for layer in engine.layers if profile_of(layer.name) == wanted]
    # from TensorRT 10 on, bindings have one name for all profiles
    bindings = [name for name in engine.bindings if profile_of(name) == wanted] or engine.bindings
    return EngineInfo(
        f"{engine.name} [profile {wanted}]" if rename and wanted else engine.name,
        [_renamed(layer, number) for number, layer in enumerate(layers)],
        [_plain(name) for name in bindings],
        notes,
        wanted,
    )


def _renamed(layer: Layer, index: int) -> Layer:
    return replace(
        layer,
        index=index,
        name=_plain(layer.name),
        inputs=[_renamed_tensor(tensor) for tensor in layer.inputs],
        outputs=[_renamed_tensor(tensor) for tensor in layer.outputs],
    )


def _renamed_tensor(tensor: Tensor) -> Tensor:
    return replace(tensor, name=_plain(tensor.name))


def _plain(name: str) -> str:
    return _SUFFIX.sub("", name)
