"""Command line of scripts/qat-yolov5.py and scripts/qat-yolov7.py: parsers built from the option dataclasses.

    arguments and --config FILE  ->  namespace  ->  QuantizeCommand, ExportCommand, ...  ->  commands.py

The namespace ends here.
"""

from __future__ import annotations

import argparse
import dataclasses
import difflib
import os
import re
from pathlib import Path
from typing import Any, NoReturn, Sequence

from quantization import __version__
from quantization.cli.options import COMMANDS
from quantization.distributed import RANKS
from quantization.errors import UserError, log_to_stdout
from quantization.memory import named_stage
from quantization.option_fields import Options, flag_of, key_of, make, walk
from quantization.text import read_json, read_yaml

PROGRAM = "PTQ and QAT of {name} for TensorRT INT8. Run it from a {name} checkout."
NUMBERS = {int: "N", float: "X"}  # stand for values in --help
NOT_ASCII_DASH = re.compile(r"\s-?[\u2010-\u2015\u2212\uff0d]")  # word processors and input methods make it of "--"
QUIET_HELP = "print warnings and the end alone"
CONFIG_HELP = (
    "YAML file of options, named as on the command line (calib-method: mse), or the summary of an earlier run; the "
    "command line wins"
)


class LineParser(argparse.ArgumentParser):
    """A parser whose errors are one line. ``config``: the file that the options come from, "" for the command line."""

    config = ""

    def error(self, message: str) -> NoReturn:
        """See the class."""
        if NOT_ASCII_DASH.search(message):
            message = f"{message}: type the dashes of an option as --"
        raise UserError(f"--config {self.config}: {message}" if self.config else f"{message}: see {self.prog} --help")


def build_parser(name: str) -> argparse.ArgumentParser:
    """The parser for one upstream.

    Args:
        name: "yolov5" or "yolov7".
    """
    parser = LineParser(prog=f"qat-{name}.py", description=PROGRAM.format(name=name))
    parser.add_argument("--version", action="version", version=f"quant-tools {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    commands.required = True
    for command, options in COMMANDS.items():
        text = str(options.__doc__).rstrip(".")
        part = commands.add_parser(command, help=text, description=text, usage="%(prog)s WEIGHT [option ...]")
        part.add_argument("--config", metavar="FILE", default=None, help=CONFIG_HELP)
        part.add_argument("--quiet", action="store_true", help=QUIET_HELP)
        add_options(part, options)
    return parser


def add_options(parser: argparse.ArgumentParser, options: type[Options], positional: bool = True) -> None:
    """Add an option dataclass to a parser; what is not given does not appear in the namespace.

    ``--help`` lists the groups of what most runs need first, then those of what few need.

    Args:
        parser: takes the options.
        options: the dataclass.
        positional: add the positional arguments too.
    """
    groups: dict[str | None, Any] = {None: parser}
    for title, entry in sorted(walk(options), key=lambda item: bool(item[1].metadata["spec"].advanced)):
        spec = entry.metadata["spec"]
        if spec.advanced:
            title = f"advanced: {title or 'files and run'}"
        if title not in groups:
            groups[title] = parser.add_argument_group(title)
        keywords: dict[str, Any] = {"help": _help_text(entry)}
        if not flag_of(entry):
            if positional:
                many = {"nargs": "*"} if isinstance(entry.default, tuple) else {}
                groups[title].add_argument(entry.name, metavar=spec.metavar, help=spec.help, **many)
            continue
        keywords["default"] = argparse.SUPPRESS
        if spec.kind is bool:
            keywords["action"] = "store_true"
        else:
            metavar = spec.metavar or NUMBERS.get(spec.kind)
            keywords.update(type=spec.kind, choices=spec.choices or None, metavar=metavar)
            if isinstance(entry.default, tuple):
                keywords["nargs"] = "+"
        groups[title].add_argument(flag_of(entry), dest=key_of(entry), **keywords)


def _help_text(entry: dataclasses.Field[Any]) -> str:
    """Help of an option, with its default if it has one that can be typed."""
    spec, default = entry.metadata["spec"], entry.default
    if spec.kind is bool or default is None or default == ():
        return str(spec.help).replace("%", "%%")
    words = " ".join(map(str, default)) if isinstance(default, tuple) else default
    return f"{spec.help} (default: {words})".replace("%", "%%")


def parse(name: str, arguments: Sequence[str] | None = None) -> tuple[str, Options]:
    """Parse a command line; see ``parse_values``.

    Returns:
        The command's name and its options.
    """
    command, values, _ = parse_values(name, arguments)
    return command, make(COMMANDS[command], values)


def parse_values(name: str, arguments: Sequence[str] | None = None) -> tuple[str, dict[str, Any], bool]:
    """Parse a command line.

    Args:
        name: "yolov5" or "yolov7".
        arguments: None: those of the process.

    Returns:
        The command's name, the options that were given, by name, and whether ``--quiet`` is among them.

    Raises:
        UserError: a value is not allowed, or the ``--config`` file cannot be used.
        SystemExit: help or the version was printed.
    """
    given = vars(build_parser(name).parse_args(arguments))
    command, config, quiet = (given.pop(key) for key in ("command", "config", "quiet"))
    options: type[Options] = COMMANDS[command]
    return command, {**(read_config(config, options) if config else {}), **given}, quiet


def read_config(file: str, options: type[Options]) -> dict[str, Any]:
    """Values of a ``--config`` file, checked as those of the command line are.

    Args:
        file: YAML: a mapping of option names, with dashes or underscores, to values. Or a summary, whose options count.
        options: what the command takes.

    Raises:
        UserError: the file is missing, no mapping, or has an option that the command does not have.
    """
    content = read_json(file, "--config") if file.endswith(".json") else read_yaml(file, "--config")
    if not isinstance(content, dict):
        raise UserError(f"--config {file} is no mapping of options to values, e.g. calib-method: mse")
    if isinstance(content.get("options"), dict):  # a summary; what it says of the weight is for the command line
        positional = {key_of(entry) for _, entry in walk(options) if not flag_of(entry)}
        content = {name: value for name, value in content["options"].items() if name not in positional}
    parser = LineParser(add_help=False, allow_abbrev=False)
    parser.config = file
    add_options(parser, options, positional=False)
    flags = {key_of(entry): entry for _, entry in walk(options) if flag_of(entry)}
    words: list[str] = []
    for name, value in content.items():
        key = str(name).replace("-", "_")
        if key not in flags:
            close = difflib.get_close_matches(key, flags, 1)
            hint = f": did you mean {close[0].replace('_', '-')}?" if close else ", see --help"
            raise UserError(f"--config {file}: this command has no option {name}{hint}")
        words += _words(file, flags[key], value)
    return vars(parser.parse_args(words))


def _words(file: str, entry: dataclasses.Field[Any], value: Any) -> list[str]:
    """A value of a ``--config`` file as it is typed on the command line; null leaves the default."""
    flag, spec = flag_of(entry), entry.metadata["spec"]
    if value is None:
        return []
    if spec.kind is bool:
        if not isinstance(value, bool):
            raise UserError(f"--config {file}: {flag[2:]} takes true or false, not {value!r}")
        return [flag] if value else []
    if isinstance(entry.default, tuple):
        parts = value if isinstance(value, list) else [value]
        return [flag, *map(str, parts)] if parts else []
    if isinstance(value, (list, dict)):
        raise UserError(f"--config {file}: {flag[2:]} takes one value, not {value!r}")
    return [f"{flag}={value}"]


def run(name: str, arguments: Sequence[str] | None = None) -> int:
    """Parse and carry out, as one of the processes of ``torchrun`` if it was started so.

    Args:
        name: "yolov5" or "yolov7".
        arguments: None: the command line.

    Returns:
        The exit code.
    """
    return RANKS.run(lambda: _run(name, arguments))


def _run(name: str, arguments: Sequence[str] | None) -> int:
    command, values, quiet = parse_values(name, arguments)
    options: Options = make(COMMANDS[command], values)
    if RANKS.many and command != "quantize":
        raise UserError(f"{command} is for one process: start it without torchrun")
    log_to_stdout(quiet)
    if quiet:
        os.environ.setdefault("TQDM_DISABLE", "1")  # read by progress_bar, and by tqdm where upstream draws bars
    from quantization.upstream.checkout import enter_checkout

    enter_checkout(name, Path(__file__).resolve().parents[2])
    from quantization.cli import commands

    RANKS.start()
    if values.get("resume"):
        options = RANKS.main_only(lambda: commands.RESUMED[command](values))
    images = getattr(options, "images", None)
    with named_stage(command, None if images is None else images.batch_size):
        return commands.TABLE[command](name, options)
