"""A pickle machine that makes data and calls nothing that the pickle chooses.

Python's own unpickler calls whatever stands on its stack, and torch's weights-only unpickler calls every class that is
allowed; YOLO layers evaluate strings in ``__init__``, so neither will do. Here a name in the pickle is an inert mark: it can
stand where an object is made, and there a maker of ours takes its place. The opcodes are read by the standard library.
"""

from __future__ import annotations

import pickletools
from collections import OrderedDict, defaultdict
from dataclasses import dataclass
from pickle import UnpicklingError
from typing import Any, BinaryIO, Callable

Maker = Callable[..., Any]
OLD_NAMES = {"__builtin__": "builtins", "copy_reg": "copyreg"}
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
EMPTY: dict[str, Callable[[], Any]] = {
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": set,
    "EMPTY_TUPLE": tuple,
}
VALUES = {
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "SHORT_BINSTRING", "BINSTRING"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
PUTS, GETS = {"BINPUT", "LONG_BINPUT"}, {"BINGET", "LONG_BINGET"}
FIXED_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
PLAIN = (str, bytes, int, float, complex, type(None))


@dataclass(frozen=True)
class Name:
    """A module and a name that a pickle asks for; the object itself is nowhere in what is loaded."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


class Mark:
    """Where a tuple, or the items of a list, begin on the stack."""


class Machine:
    """Reads a pickle.

    Args:
        resolve: of a name: a function that makes the object instead, or a value that stands for itself, which is no
            function; raises what it wants of others.
        storage: of a persistent id.
        build: fills an object that a maker made with its state.
    """

    def __init__(
        self, resolve: Callable[[Name], Any], storage: Callable[[Any], Any], build: Callable[[Any, Any], None]
    ) -> None:
        self._resolve, self._storage, self._build = resolve, storage, build
        self._makers: dict[Name, Maker] = {}
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def load(self, stream: BinaryIO) -> Any:
        """The next pickle of a stream in memory.

        Raises:
            UnpicklingError: it is damaged, or does what no checkpoint does.
        """
        self._stack, self._memo = [], {}
        try:
            for opcode, argument, _ in pickletools.genops(stream):
                if opcode.name == "STOP":
                    return self._stack.pop()
                self._do(opcode.name, argument)
        except (ValueError, IndexError, KeyError, TypeError, AttributeError, OverflowError, RuntimeError) as error:
            raise UnpicklingError(f"damaged pickle: {str(error)[:80] or type(error).__name__}") from error
        raise UnpicklingError("damaged pickle: no end")

    def _do(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name in VALUES:
            stack.append(argument)
        elif name in PUTS:
            self._memo[argument] = stack[-1]
        elif name == "MEMOIZE":
            self._memo[len(self._memo)] = stack[-1]
        elif name in GETS:
            stack.append(self._memo[argument])
        elif name in EMPTY:
            stack.append(EMPTY[name]())
        elif name in CONSTANTS:
            stack.append(CONSTANTS[name])
        elif name == "MARK":
            stack.append(Mark)
        elif name in FIXED_TUPLES:
            stack.append(tuple(self._pop(FIXED_TUPLES[name])))
        elif name == "TUPLE":
            stack.append(tuple(self._items()))
        elif name not in ("PROTO", "FRAME"):
            self._make_or_fill(name, argument)

    def _make_or_fill(self, name: str, argument: Any) -> None:
        stack = self._stack
        if name == "GLOBAL":  # module and name, each without a space
            module, _, attribute = argument.partition(" ")
            stack.append(self._find(module, attribute))
        elif name == "STACK_GLOBAL":
            module, attribute = self._pop(2)
            stack.append(self._find(module, attribute))
        elif name in ("REDUCE", "NEWOBJ"):
            target, arguments = self._pop(2)
            if not isinstance(target, Name) or type(arguments) is not tuple:
                raise UnpicklingError(f"it calls a {type(target).__name__}, which no checkpoint does")
            stack.append(self._makers[target](*arguments))
        elif name == "BUILD":
            state = stack.pop()
            self._build(stack[-1], state)
        elif name == "BINPERSID":
            stack.append(self._storage(stack.pop()))
        else:
            self._fill(name)

    def _fill(self, name: str) -> None:
        """Put items into the list, dictionary or set below them."""
        if name in ("APPEND", "SETITEM"):
            items = self._pop(1 if name == "APPEND" else 2)
        elif name in ("APPENDS", "SETITEMS", "ADDITEMS", "LIST", "DICT", "FROZENSET"):
            items = self._items()
        else:
            raise UnpicklingError(f"it has the opcode {name}, which torch.save does not write")
        if name == "FROZENSET":
            self._stack.append(frozenset(map(checked_key, items)))
            return
        if name in ("LIST", "DICT"):
            self._stack.append([] if name == "LIST" else {})
        target, kind = self._stack[-1], name[:3]
        if kind in ("APP", "LIS") and type(target) is list:
            target.extend(items)
        elif kind in ("SET", "DIC") and type(target) in (dict, OrderedDict, defaultdict):
            for key, value in zip(items[::2], items[1::2]):
                target[checked_key(key)] = value
        elif kind == "ADD" and type(target) is set:
            target.update(map(checked_key, items))
        else:
            raise UnpicklingError(f"it puts items into a {type(target).__name__}")

    def _find(self, module: Any, name: Any) -> Any:
        if not isinstance(module, str) or not isinstance(name, str):
            raise UnpicklingError("it asks for something without a name")
        found = Name(OLD_NAMES.get(module, module), name)
        if found not in self._makers:
            value = self._resolve(found)
            if not callable(value):
                return value
            self._makers[found] = value
        return found

    def _pop(self, count: int) -> list[Any]:
        """The last ``count`` values."""
        items = self._stack[-count:]
        if len(items) != count or Mark in (type(item) is type and item for item in items):
            raise UnpicklingError("damaged pickle: values are missing")
        del self._stack[-count:]
        return items

    def _items(self) -> list[Any]:
        """The values behind the last mark."""
        items: list[Any] = []
        while self._stack[-1] is not Mark:
            items.append(self._stack.pop())
        self._stack.pop()
        return items[::-1]


def checked_key(key: Any) -> Any:
    """A key of a dictionary or set: plain values, or a flat tuple of them, whose hash takes no long time.

    Raises:
        UnpicklingError: it is something else.
    """
    parts: tuple[Any, ...] = key if type(key) is tuple else (key,)
    if len(parts) > 100 or not all(isinstance(part, PLAIN) for part in parts):
        raise UnpicklingError(f"it has a {type(key).__name__} as a key")
    return key
