"""Loading and saving .pt files that upstream's own tools read too."""

from __future__ import annotations

import copy
import datetime
import pickle
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch
from torch import nn

from quantization.errors import UserError, lacks_package
from quantization.files import atomic_write
from quantization.memory import is_out_of_memory
from quantization.quantizers import backend as quantizer
from quantization.signals import SIGNALS
from quantization.upstream import model as upstream
from quantization.upstream.safe_load import check_tree, load_checkpoint
from quantization.upstream.trained_size import keep_trained_side

DAMAGE = (
    *(pickle.UnpicklingError, zipfile.BadZipFile, RuntimeError, EOFError, ValueError, KeyError, OSError),
    *(NotImplementedError, struct.error, zlib.error, OverflowError),
)  # what reading a damaged file raises
KEY = "quant_tools"  # what the bundle adds to a checkpoint


def load(file: str, device: torch.device, name: str, trust: bool = False) -> tuple[nn.Module, dict[str, Any]]:
    """Load a checkpoint and fuse the model.

    Args:
        file: a .pt of the upstream's train.py, or one of the bundle.
        device: where to put the model.
        name: the upstream, for messages.
        trust: ``--trust-weights``: unpickle whatever the file holds, which can run code.

    Returns:
        The model in float32 and eval mode, and what the bundle saved with it (empty for a float checkpoint).

    Raises:
        UserError: the file is missing, no checkpoint, or one of another upstream or quantizer backend.
        ModuleNotFoundError: the checkout needs a package that is not installed.
    """
    content = _content(Path(file), name, trust)
    if not isinstance(content, dict) or not isinstance(content.get("ema") or content.get("model"), nn.Module):
        raise UserError(
            f"{file} is no YOLO checkpoint: a dictionary with the module under 'model' or 'ema' is "
            f"expected, as {name}'s train.py saves it"
        )
    record = content.get(KEY)
    if record is not None and not isinstance(record, dict):
        raise UserError(f"{file}: its entry {KEY} is damaged (a {type(record).__name__}, no mapping): quantize again")
    model = content.get("ema") or content["model"]
    check_tree(model, file)
    if not isinstance(getattr(model, "model", None), nn.Sequential) or not hasattr(model, "stride"):
        raise UserError(f"{file} holds a {type(model).__name__}, no {name} detection model")
    ready = _ready(model, file).to(device)
    keep_trained_side(ready, content)
    return ready, dict(record or {})


def _content(path: Path, name: str, trust: bool) -> Any:
    """What the file holds, or a UserError."""
    file = str(path)
    if not path.is_file():
        raise UserError(f"weight file {file} does not exist: check the path; nothing is downloaded")
    if path.suffix == ".onnx":
        raise UserError(
            f"{file} is an ONNX: name the .pt that it comes from, or quantize it by scripts/quantize-onnx.py"
        )
    try:
        return load_checkpoint(path, trust)
    except (ImportError, AttributeError) as error:
        if "pytorch_quantization" in str(error):
            return _load_again(path, error, trust)
        if lacks_package(error) and not trust:  # the checkout's models need it; a trusted pickle may name anything
            raise
        raise UserError(
            f"{file} was not saved by {name} ({error}): use the scripts in the checkout that trained it"
        ) from error
    except DAMAGE as error:
        raise UserError(
            f"{file} is no PyTorch checkpoint ({_line(error)}): name the .pt that train.py wrote"
        ) from error


def _ready(model: Any, file: str) -> nn.Module:
    """The model in float32, mended and fused."""
    try:
        model = model.float()
        upstream.mend_old_checkpoint(model)
        upstream.forget_grids(model)
        fused: nn.Module = upstream.fuse(model)
        return fused
    except UserError as error:
        raise UserError(f"{file}: {error}") from error
    except Exception as error:  # a layer's attributes may be anything, and what upstream makes of them too
        if is_out_of_memory(error):
            raise
        raise UserError(
            f"{file} holds a damaged model ({type(error).__name__}: {_line(error)}): get it again"
        ) from error


def _line(error: Exception) -> str:
    """Beginning of an error's text; its type if there is none."""
    return " ".join(str(error).split())[:120] or type(error).__name__


def _load_again(path: Path, error: Exception, trust: bool) -> Any:
    """A checkpoint of the pytorch-quantization backend: its package may need help to import."""
    try:
        quantizer.import_pytorch_quantization()
    except ImportError:
        raise UserError(
            f"{path} was quantized with the pytorch-quantization backend ({error}): install that package, "
            "or quantize again with --backend native"
        ) from error
    return load_checkpoint(path, trust)


def save(file: str, model: nn.Module, info: dict[str, Any]) -> None:
    """Write a checkpoint; the file appears complete or not at all.

    Args:
        file: the .pt to write.
        model: a copy is saved, on the CPU and without gradients.
        info: saved under ``KEY``: what is needed to rebuild and to explain the model.

    Raises:
        UserError: the file cannot be written.
    """
    model = copy.deepcopy(model).cpu().requires_grad_(False)  # yolov7 folds into the head again when it loads
    for tensor in (*model.parameters(), *model.buffers()):
        vars(tensor).clear()  # notes of torch's compiler, which may hold what no checkpoint needs
    content = {
        "epoch": -1,
        "best_fitness": None,
        "model": model,
        "ema": None,
        "updates": None,
        "optimizer": None,
        "training_results": None,
        "wandb_id": None,
        KEY: info,
        "date": datetime.datetime.now().isoformat(timespec="seconds"),
    }
    write_pt(file, content)


def write_pt(file: str, content: Any) -> None:
    """``torch.save``; the file appears complete or not at all.

    Raises:
        UserError: it cannot be written.
    """
    with atomic_write(file) as temporary, open(temporary, "wb") as handle:
        try:
            torch.save(content, handle)
        except RuntimeError as error:  # torch's own, raised while it handles what the system said: a full disk, say
            SIGNALS.check()  # or what a signal's handler raised
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise UserError(f"{file} cannot be written ({str(error).splitlines()[0][:120]})") from error
