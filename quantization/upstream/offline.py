"""Keeps upstream's own scripts from installing or fetching anything.

Both upstreams download fonts, weights and data sets, ask GitHub for newer versions and run pip when they miss
something. Here what they can do without is left out, and everything else is refused with one line that says what to
do instead. Nothing is written into the checkout or into upstream's settings folder.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
from pathlib import Path
from typing import Any, Callable

from quantization.data.data_yaml import DataYaml, split_sources
from quantization.errors import UserError

INSTALLS = re.compile(r"\bpip3?\b.*\binstall\b|\b(conda|mamba|apt|apt-get)\b.*\binstall\b")
FETCHES = re.compile(r"\b(curl|wget|gsutil)\b|\bgit\b.*\b(fetch|pull|clone|remote add)\b")
FONTS = ("Arial.ttf", "Arial.Unicode.ttf")  # of both upstreams' plots
LOCAL = ("localhost", "127.", "::1", "0.0.0.0")

_on = False


class Refused(UserError, OSError):
    """What upstream wanted to install or fetch. An OSError: its ``check_online`` takes it for being offline."""


def go_offline() -> None:
    """Refuse network connections and installations of this process from now on. A second call changes nothing.

    An audit hook sees every connection, host look-up, and command that Python code starts, whichever function asks.
    It cannot be taken out again, so this is for ``python -m quantization.upstream`` alone.
    """
    global _on
    if _on:
        return
    _on = True
    os.environ["YOLOv5_AUTOINSTALL"] = "false"
    sys.addaudithook(_refuse)
    _use_installed_font()


def patch_checks(data: str = "data.yaml") -> None:
    """Replace those of upstream's checks that fetch, in the checkout on ``sys.path``.

    Args:
        data: the script's ``--data``, beside which paths are looked for too.
    """
    for name in ("utils.downloads", "utils.google_utils"):
        module = _module(name)
        if module is not None:
            module.attempt_download = _existing_weights
    general = _module("utils.general")
    if general is None:
        return
    general.attempt_download = _existing_weights
    if hasattr(general, "check_font"):
        general.check_font = lambda *_, **__: None  # ``_use_installed_font`` serves what it would have fetched
    general.check_dataset = _local_data(general.check_dataset, Path(data))


def _module(name: str) -> Any:
    try:
        return importlib.import_module(name) if importlib.util.find_spec(name) is not None else None
    except ModuleNotFoundError:
        return None  # no such package: the folder is no checkout


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    """The audit hook."""
    if event == "socket.connect":
        address = arguments[1]
        if isinstance(address, tuple) and not str(address[0]).startswith(LOCAL):
            raise Refused(_advice(f"connect to {address[0]}:{address[1]}"))
    elif event == "socket.getaddrinfo":
        host = arguments[0]
        host = host.decode() if isinstance(host, bytes) else host
        if host and not host.startswith(LOCAL):
            raise Refused(_advice(f"fetch from {host}"))
    elif event in ("subprocess.Popen", "os.system"):
        command = _text(arguments[0] if event == "os.system" else arguments[1])
        if INSTALLS.search(command):
            raise Refused(
                f"upstream's script wants to run `{command}`: install what it needs yourself, then run it again"
            )
        if FETCHES.search(command):
            raise Refused(_advice(f"run `{command}`"))


def _text(command: Any) -> str:
    parts = [command] if isinstance(command, (str, bytes)) else list(command)
    words = [os.fsdecode(part) for part in parts]
    return words[2] if len(words) == 3 and words[1] == "-c" else " ".join(words)  # a shell's


def _advice(what: str) -> str:
    return (
        f"upstream's script wants to {what}: python -m quantization.upstream fetches nothing; "
        "put the file where the script looks for it, or run the script without python -m quantization.upstream"
    )


def _existing_weights(file: Any, *_: Any, **__: Any) -> str:
    """Stands in for upstream's ``attempt_download``; yolov7's looks for the file under its name in lower case."""
    path = str(file).strip().replace("'", "")
    if not Path(path).exists():
        raise Refused(
            f"weight file {path} does not exist: python -m quantization.upstream fetches no weights; "
            "give the path of a file that is there"
        )
    return path


def _local_data(check: Callable[..., Any], file: Path) -> Callable[..., Any]:
    """Upstream's ``check_dataset`` without the download.

    yolov7's gets the yaml's content, and its scripts read that afterwards: paths below ``path:``, and the number of
    classes from the names, are filled in as the bundle's own commands find them.
    """

    def check_dataset(data: Any, *_: Any, **__: Any) -> Any:
        if isinstance(data, dict):
            _fill_in(data, file)
            data = {key: value for key, value in data.items() if key != "download"}
            arguments: tuple[Any, ...] = (data,)
        else:
            arguments = (data, False)
        try:
            return check(*arguments)
        except Exception as error:
            if not str(error).startswith("Dataset not found"):
                raise
            raise Refused(
                f"--data: {_missing(data)} python -m quantization.upstream fetches no data; "
                "correct the paths in the yaml, or put the data there"
            ) from error

    return check_dataset


def _fill_in(data: dict[str, Any], file: Path) -> None:
    content = DataYaml(file, str(data.get("path") or ""), [], [], [], None)
    for part in ("train", "val", "test"):
        entries = data.get(part)
        if not entries:
            continue
        many = isinstance(entries, list)
        try:
            found = [str(path) for path, _ in split_sources(content, part, entries if many else [str(entries)])]
        except UserError:
            continue  # upstream says what is missing
        data[part] = found if many else found[0]
    if isinstance(data.get("names"), (list, tuple, dict)):
        data.setdefault("nc", len(data["names"]))


def _missing(data: Any) -> str:
    if isinstance(data, dict):
        return f"val: {data.get('val')} does not exist:"
    return f"the images that {data} names under val: do not exist:"


def _use_installed_font() -> None:
    """Let Pillow take matplotlib's own font where upstream asks for Arial and the system has none."""
    from PIL import ImageFont

    original = ImageFont.truetype

    def truetype(font: Any = None, *arguments: Any, **settings: Any) -> Any:
        try:
            return original(font, *arguments, **settings)
        except OSError:
            if not isinstance(font, (str, Path)) or Path(font).name not in FONTS:
                raise
            from matplotlib import font_manager

            return original(font_manager.findfont("DejaVu Sans"), *arguments, **settings)

    ImageFont.truetype = truetype


def network_refusal(error: BaseException | None) -> UserError | None:
    """The UserError that an exception is, or that it was raised from or while handling; one for a missing .pt too."""
    if isinstance(error, FileNotFoundError) and str(error.filename).endswith(".pt"):
        return UserError(f"weight file {error.filename} does not exist")
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, UserError):
            return error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return None
