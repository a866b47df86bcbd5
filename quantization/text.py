"""Text, JSON and YAML files as people have them: byte-order marks are stripped, damage is reported in one line."""

from __future__ import annotations

import codecs
import json
import os
from pathlib import Path
from typing import Any

from quantization.errors import UserError

BYTE_ORDER_MARKS = (  # UTF-32 first: its little-endian mark begins with that of UTF-16
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
YAML_BYTES = 16 << 20  # PyYAML reads about 1 MB per second
WIDE_PUNCTUATION = "\uff1a\uff0c\u3010\u3011\u201c\u201d"  # colon, comma, brackets, quotes of Chinese input methods
YAML_NODES = 2_000_000  # values after aliases are expanded; a list of all COCO images has 0.12 million


def read_text(path: str | os.PathLike[str], what: str = "") -> str:
    """The text of a file in UTF-8, or in the UTF encoding that its byte-order mark names; without the mark.

    Args:
        path: the file.
        what: the option or kind of file, put before the path in messages.

    Raises:
        UserError: the file cannot be read, or is in another encoding.
    """
    name = f"{what} {path}".strip()
    try:
        data = Path(path).read_bytes()
    except FileNotFoundError as error:
        raise UserError(f"{name} does not exist: check the path") from error
    except OSError as error:
        raise UserError(f"{name} cannot be read ({error.strerror}): check the path and its permissions") from error
    encoding = next((encoding for mark, encoding in BYTE_ORDER_MARKS if data.startswith(mark)), "utf-8")
    nul = UserError(
        f"{name} has NUL bytes: it is binary, so name another file, or UTF-16 without a byte-order mark; save it as UTF-8"
    )
    try:
        text = data.decode(encoding)
    except UnicodeDecodeError as error:
        if encoding == "utf-8" and b"\0" in data:
            raise nul from error
        line = data.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{name} is not {encoding[:6].rstrip('-').upper()} text (byte 0x{data[error.start]:02x} in line {line}): "
            "save it as UTF-8, for example with `iconv -f GBK -t UTF-8` (or -f LATIN1)"
        ) from error
    if "\0" in text:
        raise nul
    return text


def read_json(path: str | os.PathLike[str], what: str = "", strict: bool = True) -> Any:
    """The content of a JSON file.

    Args:
        path: the file.
        what: the option or kind of file, put before the path in messages.
        strict: False: strings may hold control characters, as in TensorRT's layer files.

    Raises:
        UserError: the file cannot be read, is in another encoding than UTF, or is not valid JSON.
    """
    name = f"{what} {path}".strip()
    try:
        return json.loads(read_text(path, what), strict=strict)
    except json.JSONDecodeError as error:
        raise UserError(
            f"{name} is not valid JSON (line {error.lineno}, column {error.colno}: {error.msg}): "
            "write it again, it may be cut off"
        ) from error
    except RecursionError as error:
        raise UserError(f"{name} is nested too deeply: no tool writes such a JSON file") from error
    except ValueError as error:  # an integer of thousands of digits
        raise UserError(f"{name} is not valid JSON ({error})") from error


def read_yaml(path: str | os.PathLike[str], what: str = "") -> Any:
    """The content of a YAML file; None if it is empty.

    Args:
        path: the file.
        what: the option or kind of file, put before the path in messages.

    Raises:
        UserError: the file cannot be read, is in another encoding than UTF, is not valid YAML, has a key twice, or is
            too large or nested too deeply once its aliases are expanded.
    """
    import yaml

    name = f"{what} {path}".strip()
    text = read_text(path, what)
    if len(text) > YAML_BYTES:
        raise UserError(f"{name} is larger than {YAML_BYTES >> 20} MiB: list the images in a .txt file")
    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _expanded_size(node, name, {})
            return loader.construct_document(node)
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark is not None else ""
        parts = [getattr(error, part, None) for part in ("context", "problem")]
        problem = ", ".join(part for part in parts if part) or str(error)
        raise UserError(f"{name} is not valid YAML ({place}{' '.join(problem.split())}){wide_hint(text)}") from error
    except RecursionError as error:
        raise UserError(f"{name} is nested too deeply: write its lists and mappings flat") from error
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        # PyYAML's constructors let these escape: a date of month 13, `!!int ""`, `!!bool maybe`
        raise UserError(f"{name} is not valid YAML (a value does not fit its type: {error})") from error


def wide_hint(text: str) -> str:
    """What to add to a message about YAML whose ``:`` or ``,`` may be of an input method: there they are ordinary text."""
    found = " ".join(mark for mark in WIDE_PUNCTUATION if mark in text)
    return f"; it has {found}: YAML wants the ASCII marks" if found else ""


def _expanded_size(node: Any, name: str, sizes: dict[int, int | None]) -> int:
    """Number of nodes below a YAML node, aliases counted as often as they are used.

    Raises:
        UserError: there are too many, a node contains itself, or a mapping has a key twice.
    """
    known = sizes.get(id(node), 0)
    if known is None:
        raise UserError(f"{name}, line {node.start_mark.line + 1}: an alias contains itself")
    if known:
        return known
    sizes[id(node)] = None  # in progress
    total = 1
    if node.id == "mapping":
        _refuse_double_keys(node, name)
    children = [] if node.id == "scalar" else node.value
    for child in children:
        for part in child if isinstance(child, tuple) else (child,):
            total += _expanded_size(part, name, sizes)
    if total > YAML_NODES:
        raise UserError(f"{name} has more than {YAML_NODES} values once its aliases are expanded")
    sizes[id(node)] = total
    return total


def _refuse_double_keys(node: Any, name: str) -> None:
    seen = set()
    for key, _ in node.value:
        if key.id != "scalar" or key.tag == "tag:yaml.org,2002:merge":
            continue
        if (key.tag, key.value) in seen:
            raise UserError(f"{name}, line {key.start_mark.line + 1}: {key.value}: is given twice: keep one")
        seen.add((key.tag, key.value))
