"""What an option is: a dataclass field with help, choices and bounds, checked when the dataclass is made."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import MISSING, dataclass, field
from typing import Any, Iterator, Sequence, TypeVar

from quantization.errors import UserError

Command = TypeVar("Command", bound="Options")


@dataclass(frozen=True)
class Bounds:
    """What a number may be: finite, and within these.

    Attributes:
        least: smallest value.
        most: largest value.
        above: every value is larger than this.
        below: every value is smaller than this.
    """

    least: float | None = None
    most: float | None = None
    above: float | None = None
    below: float | None = None

    def __contains__(self, value: float) -> bool:
        return (
            math.isfinite(value)
            and (self.least is None or value >= self.least)
            and (self.most is None or value <= self.most)
            and (self.above is None or value > self.above)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        words = (("at least", self.least), ("at most", self.most), ("above", self.above), ("below", self.below))
        return "a number " + " and ".join(f"{word} {limit:g}" for word, limit in words if limit is not None)


POSITIVE = Bounds(least=1)
NOT_NEGATIVE = Bounds(least=0)


@dataclass(frozen=True)
class Spec:
    """What the parser and the checks know of an option.

    Attributes:
        help: for ``--help``.
        flag: on the command line; "" for a positional argument; None: the field's name with two dashes.
        kind: type of a value, or of each value.
        choices: allowed values; empty: any.
        bounds: of a number.
        metavar: stands for the value in ``--help``.
        off: a flag that turns off what is on by default, as ``--no-rules``.
        advanced: ``--help`` lists it behind all others, since few need it.
    """

    help: str
    flag: str | None = None
    kind: type = str
    choices: Sequence[str] = ()
    bounds: Bounds | None = None
    metavar: str | None = None
    off: bool = False
    advanced: bool = False


def option(default: Any, text: str, **spec: Any) -> Any:
    """A dataclass field that is an option; see ``Spec``. The type follows from the default unless ``kind`` is given."""
    spec.setdefault("kind", type(default) if default is not None else str)
    keywords = {} if default is MISSING else {"default": default}
    return field(metadata={"spec": Spec(help=text, **spec)}, **keywords)


def argument(text: str, metavar: str = "WEIGHT", many: bool = False) -> Any:
    """A positional argument: one, or any number of them."""
    return option(() if many else MISSING, text, flag="", kind=str, metavar=metavar)


def group(options: type, title: str, without: Sequence[str] = ()) -> Any:
    """A dataclass field that holds options of its own, under a title in ``--help``.

    Args:
        options: their dataclass.
        title: of the group.
        without: names of fields that this command does not have as options: it sets them itself.
    """
    return field(default_factory=options, metadata={"title": title, "without": tuple(without)})


def same_option(options: type, name: str) -> Any:
    """A field with default, help and checks of another dataclass's."""
    (entry,) = (entry for entry in dataclasses.fields(options) if entry.name == name)
    return field(default=entry.default, metadata=entry.metadata)


class Options:
    """Base of the option dataclasses: checks choices and bounds of every field.

    Raises:
        UserError: a value is not allowed; the message names the option.
    """

    def __post_init__(self) -> None:
        for entry in dataclasses.fields(self):  # type: ignore[arg-type]  # subclasses are dataclasses
            spec = entry.metadata.get("spec")
            if spec is None:
                continue
            value = getattr(self, entry.name)
            flag = flag_of(entry) or spec.metavar
            for part in value if isinstance(value, tuple) else () if value is None else (value,):
                if spec.choices and part not in spec.choices:
                    raise UserError(f"{flag} {part} is unknown: choose one of {', '.join(spec.choices)}")
                if spec.bounds is not None and part not in spec.bounds:
                    raise UserError(f"{flag} {part} is out of range: give {spec.bounds}")


def flag_of(entry: dataclasses.Field[Any]) -> str:
    """A field's option on the command line; "" for a positional argument."""
    flag: str | None = entry.metadata["spec"].flag
    return "--" + entry.name.replace("_", "-") if flag is None else flag


def key_of(entry: dataclasses.Field[Any]) -> str:
    """The name of a field in records and in ``--config`` files: its flag's, with underscores."""
    return flag_of(entry)[2:].replace("-", "_") or entry.name


def walk(options: type | Options) -> Iterator[tuple[str | None, dataclasses.Field[Any]]]:
    """The options of a dataclass, those of its groups included: title of the group (None at the top), field."""
    for entry in dataclasses.fields(options):  # type: ignore[arg-type]  # subclasses are dataclasses
        if "title" in entry.metadata:
            factory: Any = entry.default_factory
            for _, inner in walk(factory):
                if inner.name not in entry.metadata["without"]:
                    yield entry.metadata["title"], inner
        else:
            yield None, entry


def changed(options: Options, names: Sequence[str] = ()) -> list[str]:
    """Flags of the options that have other values than their defaults.

    Args:
        options: of one dataclass; not of its groups.
        names: fields to look at; empty: all.
    """
    return [
        flag_of(entry)
        for entry in dataclasses.fields(options)  # type: ignore[arg-type]  # subclasses are dataclasses
        if "spec" in entry.metadata
        and (not names or entry.name in names)
        and getattr(options, entry.name) != entry.default
    ]


def refuse_unused(flags: Sequence[str], needed: str) -> None:
    """Raises a UserError if options were given that would have no effect.

    Args:
        flags: of these options.
        needed: what would give them one.
    """
    if flags:
        raise UserError(f"{', '.join(flags)} would have no effect without {needed}: add that, or leave it out")


def record(options: Options) -> dict[str, Any]:
    """All options by name, as they are spelled on the command line; a ``--config`` file reads it back."""
    result: dict[str, Any] = {}
    for entry in dataclasses.fields(options):  # type: ignore[arg-type]  # subclasses are dataclasses
        value = getattr(options, entry.name)
        if "title" in entry.metadata:
            hidden = entry.metadata["without"]
            result.update({name: part for name, part in record(value).items() if name not in hidden})
        else:
            result[key_of(entry)] = not value if entry.metadata["spec"].off else value
    return result


def make(options: type[Command], values: dict[str, Any]) -> Command:
    """Make an option dataclass, with its groups, of values by name; what is missing has its default."""
    arguments: dict[str, Any] = {}
    for entry in dataclasses.fields(options):  # type: ignore[arg-type]  # subclasses are dataclasses
        if "title" in entry.metadata:
            factory: Any = entry.default_factory
            hidden = {key_of(inner) for _, inner in walk(factory) if inner.name in entry.metadata["without"]}
            arguments[entry.name] = make(factory, {key: values[key] for key in values if key not in hidden})
        elif key_of(entry) in values:
            value = values[key_of(entry)]
            value = tuple(value) if isinstance(entry.default, tuple) else value
            arguments[entry.name] = not value if entry.metadata["spec"].off else value
    return options(**arguments)


def typed_words(options: Options) -> list[str]:
    """Options as they are typed on a command line, without those that have their defaults."""
    values = record(options)
    first: list[str] = []
    words: list[str] = []
    for _, entry in walk(options):
        value, flag = values[key_of(entry)], flag_of(entry)
        if not flag:
            first.append(str(value))
        elif entry.metadata["spec"].kind is bool:
            words += [flag] if value else []
        elif value not in (None, entry.default):
            words += [flag, *map(str, value if isinstance(value, (tuple, list)) else (value,))]
    return first + words
