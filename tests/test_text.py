"""The one reader of text, JSON and YAML."""

from __future__ import annotations

import codecs
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from quantization.errors import UserError
from quantization.text import read_json, read_text, read_yaml

FEW = settings(
    max_examples=200, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
MARKED = {
    "utf-8": b"",
    "utf-8-sig": b"",
    "utf-16-le": codecs.BOM_UTF16_LE,
    "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32-le": codecs.BOM_UTF32_LE,
    "utf-32-be": codecs.BOM_UTF32_BE,
}


@settings(FEW, max_examples=60)
@given(text=st.text(st.characters(exclude_characters="\0\ufeff", exclude_categories=["Cs"])))
@pytest.mark.parametrize("encoding", sorted(MARKED))
def test_every_unicode_encoding(tmp_path: Path, encoding: str, text: str) -> None:
    file = tmp_path / "x.txt"
    file.write_bytes(MARKED[encoding] + text.encode(encoding))
    assert read_text(file) == text


@pytest.mark.parametrize(
    "data, complaint",
    [
        ("ok\n汽车\n".encode("gbk"), r"not UTF-8 text \(byte 0xc6 in line 2\).*iconv"),
        ("größe".encode("latin-1"), r"not UTF-8 text \(byte 0xf6 in line 1\)"),
        ("ab".encode("utf-16-le"), "NUL bytes"),
        (b"PK\x03\x04\x00\x00\x80\x00", "NUL bytes.*name another file"),
        (codecs.BOM_UTF16_LE + b"a", r"not UTF-16 text \(byte 0x61 in line 1\)"),
    ],
)
def test_other_encodings(tmp_path: Path, data: bytes, complaint: str) -> None:
    (tmp_path / "x.txt").write_bytes(data)
    with pytest.raises(UserError, match=rf"^--data \S+x\.txt (is|has) {complaint}"):
        read_text(tmp_path / "x.txt", "--data")


def test_what_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^--data \S+none does not exist"):
        read_text(tmp_path / "none", "--data")
    with pytest.raises(UserError, match=r"^\S+ cannot be read \(Is a directory\)"):
        read_text(tmp_path)


def content(file: Path, text: str) -> Path:
    file.write_text(text, encoding="utf-8")
    return file


def test_json(tmp_path: Path) -> None:
    file = content(tmp_path / "x.json", "\ufeff" + '{"a": [1, "\x1e"]}')
    assert read_json(file, strict=False) == {"a": [1, "\x1e"]}
    for text, complaint in (
        (file.read_text(encoding="utf-8"), r"line 1, column 12: Invalid control character"),
        ('{"a":\n[1,', "line 2, column 4"),
        ("[" * 100000, "nested too deeply"),
        ("9" * 5000, "not valid JSON"),
    ):
        with pytest.raises(UserError, match=rf"^layers \S+x\.json is .*{complaint}"):
            read_json(content(file, text), "layers")


LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
TREES = st.recursive(LEAVES, lambda part: st.lists(part) | st.dictionaries(st.text() | st.integers(), part))


@FEW
@given(tree=TREES)
def test_what_was_written_is_read(tmp_path: Path, tree: Any) -> None:
    text = yaml.safe_dump(tree, allow_unicode=True)
    assert read_yaml(content(tmp_path / "x.yaml", text)) == yaml.safe_load(text)
    assert read_json(content(tmp_path / "x.json", json.dumps(tree))) == json.loads(json.dumps(tree))


YAML_PARTS = [
    "a",
    "1",
    "2020-13-41",
    ":",
    " ",
    "\n",
    "- ",
    "[",
    "]",
    "{",
    "}",
    "&b ",
    "*b",
    "!!int ",
    "!!bool ",
    "<<: ",
]
YAML_PARTS += [
    "? ",
    "|",
    ">",
    "%",
    "@",
    "'",
    '"',
    "!!timestamp ",
    "!!binary ",
    "!!set ",
    "!x ",
    "---\n",
    "#",
    ",",
    "\t",
]


@FEW
@given(
    st.lists(st.sampled_from([*YAML_PARTS, "!!python/object:x ", "=", "~", ".inf", "0x", "é"]), max_size=12).map(
        "".join
    )
)
@example("!!timestamp x")
@example("!!int ''")
@example("!!bool maybe")
@example("2020-13-41")
@example("&a [*a]")
@example("? [a]\n: b")
def test_any_yaml_is_read_or_refused(tmp_path: Path, text: str) -> None:
    file = content(tmp_path / "x.yaml", text)
    try:
        found = read_yaml(file)
    except UserError as error:
        assert str(file) in str(error) and "\n" not in str(error)
    else:
        assert str(found) == str(yaml.safe_load(text))  # as text: NaN differs from itself


@pytest.mark.parametrize(
    "text, complaint",
    [
        ("a: [1,\nb: 2", "line 2, column 5: while parsing a flow sequence, expected"),
        ("{", "line 1, column 2"),
        ("a: [1\uff0c 2\nb\uff1a 3", r"'<stream end>'\); it has \uff1a \uff0c: YAML wants"),
        ("a: 1\nnames: [x]\na: 2", "line 3: a: is given twice"),
        ("names: {0: a, 1: b, 0: c}", "line 1: 0: is given twice"),
        ("a: &x [*x]", "line 1: an alias contains itself"),
        ("[" * 5000 + "]" * 5000, "nested too deeply"),
        (
            "a: &a [x, x]\n"
            + "".join(f"a{n}: &a{n} [{name * 9}]\n" for n, name in enumerate(["*a,", *(f"*a{m}," for m in range(8))])),
            "more than 2000000 values",
        ),
        ("a: 2020-13-41", "a value does not fit its type"),
        ("a: !!python/object/apply:os.system [x]", "could not determine a constructor"),
        ("a: \x01", "not valid YAML"),
        ("# " + "x" * (17 << 20), "larger than 16 MiB"),
    ],
)
def test_bad_yaml(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(UserError, match=complaint) as error:
        read_yaml(content(tmp_path / "x.yaml", text), "--data")
    assert str(error.value).startswith(f"--data {tmp_path / 'x.yaml'}") and "\n" not in str(error.value)


def test_merge_keys_and_empty_files(tmp_path: Path) -> None:
    assert read_yaml(content(tmp_path / "x.yaml", "a: &a {b: 1}\nc:\n  <<: *a\n  b: 2")) == {
        "a": {"b": 1},
        "c": {"b": 2},
    }
    twice = "a: &a {b: 1}\nc: &c {d: 2}\ne:\n  <<: *a\n  <<: *c"
    assert read_yaml(content(tmp_path / "x.yaml", twice))["e"] == yaml.safe_load(twice)["e"]
    assert read_yaml(content(tmp_path / "x.yaml", "# nothing")) is None
