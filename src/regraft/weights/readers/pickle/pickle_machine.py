"""The machine under `unpickle`: its stack, its memo, and what each instruction does to them.

A name in the pickle becomes a `Global`, an object of a class an inert `Stub` with its state, and a *call* is
carried out only where the reader's `Words` have a handler for that very name. Long byte strings are not copied: they
stay a range of the file. Work and memory come from the file's `Budget`; a key of a dict is a plain value or counts by
identity, so nothing is ever hashed, compared or printed through all its depth.
"""

from __future__ import annotations

import codecs
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from regraft.weights.limits import LimitError, budget, shown

__all__ = ["Global", "Machine", "PickleError", "Raw", "RefusedCallError", "Stub", "Words"]

_MAX_NUMBER = 32  # bytes of an integer: the states of random generators have 16
_MAX_LINE = 80  # digits of a number in text
_COPIED = 1024  # longer byte strings stay in the file
# Bytes that a part takes in memory.
_ENTRY, _SET, _OBJECT = 100, 216, 300

Call = Callable[..., Any]


class PickleError(ValueError):
    """A pickle that is damaged, or wants more than data; the text goes on after the name of the file."""


class RefusedCallError(PickleError):
    """A pickle that calls something: `called` says what."""

    def __init__(self, called: str) -> None:
        super().__init__(f"its pickle calls {called!r}, which regraft never does: no code from a file is executed")
        self.called = called


@dataclass(frozen=True)
class Global:
    """A name that the pickle asks for, not imported."""

    name: str


@dataclass(eq=False)
class Stub:
    """An object of a class that is not rebuilt: the class's name, and its state as plain data."""

    name: str
    args: tuple[Any, ...] = ()
    state: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        budget().hold(_OBJECT)


@dataclass(frozen=True)
class Raw:
    """A long byte string, where it lies."""

    start: int
    size: int


@dataclass(frozen=True)
class Words:
    """What the names in a pickle stand for.

    Attributes:
        calls: Handlers by full name (`torch._utils._rebuild_tensor_v2`) for the calls that are allowed.
        persistent: What to make of a persistent id (`('storage', ...)`); None when there is none.
        fill: Gives an object its state; False when it is no object of the reader's.
        names: The only names that may occur at all; None when others become stubs.
    """

    calls: Mapping[str, Call] = field(default_factory=dict)
    persistent: Callable[[Any], Any] | None = None
    fill: Callable[[Any, Any], bool] | None = None
    names: frozenset[str] | None = None


# Classes whose objects are made by a call and are harmless as inert stubs: settings beside the weights.
_INERT = frozenset(
    ["argparse.Namespace", "types.SimpleNamespace", "decimal.Decimal", "fractions.Fraction", "uuid.UUID"]
    + [f"datetime.{name}" for name in ("datetime", "date", "time", "timedelta", "timezone")]
    + [f"pathlib.{name}" for name in ("Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")]
    + [f"pathlib._local.{name}" for name in ("Path", "PosixPath", "WindowsPath", "PurePosixPath", "PureWindowsPath")]
)
_PLAIN = (str, int, float, bool, bytes, type(None))
_MARK = object()


class Machine:
    """The stack, the memo, and one method for each instruction."""

    def __init__(self, view: memoryview, start: int, words: Words) -> None:
        self.view, self.at = view, start
        self.words = words
        self.budget = budget()
        self.stack: list[Any] = []
        self.memo: dict[int, Any] = {}
        self.names: dict[str, Global] = {}

    def run(self, steps: Mapping[int, Callable[[Machine], None]]) -> Any:
        view = self.view
        for count in range(self.budget.steps_left):
            code = view[self.at]
            self.at += 1
            if code == 0x2E:  # STOP
                self.budget.step(count)
                return self.result()
            step = steps.get(code)
            if step is None:
                raise PickleError(f"its pickle uses the instruction {bytes([code])!r}, which weights files never need")
            step(self)
        raise LimitError("its pickle has more instructions than a network of its size needs")

    def result(self) -> Any:
        if len(self.stack) != 1 or self.stack[0] is _MARK:
            raise PickleError("its pickle does not leave exactly one value")
        return self.stack[0]

    # Bytes of the file

    def take(self, size: int) -> bytes:
        start = self.skip(size)
        return bytes(self.view[start : self.at])

    def skip(self, size: int) -> int:
        start = self.at
        if size < 0 or start + size > len(self.view):
            raise PickleError("its pickle is truncated")
        self.at = start + size
        return start

    def number(self, form: struct.Struct) -> int:
        (value,) = form.unpack_from(self.view, self.at)
        self.at += form.size
        return int(value)

    def line(self) -> bytes:
        # Pickles in text (protocol 0) hold a whole array in one line, so the window grows until it holds the line.
        size = 256
        while True:
            window = bytes(self.view[self.at : self.at + size])
            end = window.find(b"\n")
            if end >= 0:
                self.at += end + 1
                return window[:end]
            if len(window) < size:
                raise PickleError("its pickle is truncated")
            size *= 8

    def short_line(self) -> bytes:
        line = self.line().strip()
        if len(line) > _MAX_LINE:
            raise PickleError("its pickle holds a number with too many digits")
        return line

    # Plain values

    def text(self, raw: bytes, encoding: str = "utf-8") -> None:
        value = raw.decode(encoding, "surrogatepass" if encoding == "utf-8" else "strict")
        self.budget.hold(len(value) if value.isascii() else 4 * len(value))
        self.stack.append(value)

    def string(self, size: int) -> None:
        """Read a string of Python 2: text or bytes, which is not known; as text, each character is a byte."""
        if size > _COPIED:
            self.stack.append(Raw(self.skip(size), size))
        else:
            self.stack.append(self.take(size).decode("latin1"))

    def raw(self, size: int) -> None:
        self.stack.append(Raw(self.skip(size), size) if size > _COPIED else self.take(size))

    def quoted(self) -> None:
        line = self.line().strip()
        if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
            raise PickleError("its pickle holds a damaged string")
        self.text(codecs.escape_decode(line[1:-1])[0], "latin1")

    def whole(self) -> None:
        line = self.short_line()
        self.stack.append(line == b"01" if line in (b"00", b"01") else int(line.rstrip(b"L")))

    def long(self, size: int) -> None:
        if not 0 <= size <= _MAX_NUMBER:
            raise PickleError(f"its pickle holds a number of {size} bytes")
        self.stack.append(int.from_bytes(self.take(size), "little", signed=True))

    # The stack

    def pop(self) -> Any:
        value = self.stack.pop()
        if value is _MARK:
            raise PickleError("its pickle is malformed")
        return value

    def items(self) -> list[Any]:
        """Pop everything above the last mark, and the mark."""
        stack = self.stack
        at = len(stack) - 1
        while stack[at] is not _MARK:
            at -= 1
            if at < 0:
                raise PickleError("its pickle lacks a mark")
        above = stack[at + 1 :]
        del stack[at:]
        return above

    def some(self, count: int) -> tuple[Any, ...]:
        items = tuple(self.stack[-count:])
        if len(items) < count or _MARK in items:
            raise PickleError("its pickle is malformed")
        del self.stack[-count:]
        return items

    def drop(self) -> None:
        self.stack.pop()

    def drop_items(self) -> None:
        self.items()

    def mark(self) -> None:
        self.stack.append(_MARK)

    def full_dict(self) -> None:
        self.stack.append(self.filled({}, self.items()))

    def full_frozenset(self) -> None:
        self.stack.append(frozenset(self.keys(self.items())))

    def empty_set(self) -> None:
        self.budget.hold(_SET)
        self.stack.append(set())

    def put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def get(self, index: int) -> None:
        self.stack.append(self.memo[index])

    # Containers

    def add(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, set):
            target.update(self.keys(items))

    def append(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, list):
            target.extend(items)
        elif not isinstance(target, Stub):  # the items of a list subclass hold settings, never weights
            raise PickleError("its pickle is malformed")

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if isinstance(target, dict):
            self.filled(target, items)
        elif isinstance(target, Stub):
            target.state.update(self.filled({}, items))
        else:
            raise PickleError("its pickle is malformed")

    def pairs(self, pairs: Any) -> dict[Any, Any]:
        """Return a new dict from a dict, or from pairs."""
        if isinstance(pairs, dict):
            self.budget.hold(_ENTRY * len(pairs))
            return dict(pairs)
        flat: list[Any] = []
        for pair in self.sized(pairs, _ENTRY):
            if not isinstance(pair, list | tuple) or len(pair) != 2:
                raise PickleError("its pickle builds a dict from something other than pairs")
            flat += pair
        return self.filled({}, flat)

    def filled(self, target: dict[Any, Any], items: list[Any]) -> dict[Any, Any]:
        """Return the dict, with these keys and values in turn."""
        if len(items) % 2:
            raise PickleError("its pickle has a dict key without a value")
        self.budget.hold(_ENTRY * len(items) // 2)
        for at in range(0, len(items), 2):
            key = _key(items[at])
            if key in target:
                raise PickleError(f"its pickle has the duplicate key {shown(key)}")
            target[key] = items[at + 1]
        return target

    def keys(self, items: Any) -> Iterator[Any]:
        """Return what stands in a new set for each of some values."""
        return map(_key, self.sized(items, _ENTRY, _SET))

    def sized(self, items: Any, width: int = 8, empty: int = 0) -> Any:
        if not isinstance(items, list | tuple | set | frozenset | dict):
            raise PickleError(f"its pickle builds a container from {shown(items)}")
        self.budget.hold(empty + width * len(items))
        return items

    def encoded(self, text: Any, encoding: Any = "latin1") -> bytes:
        if not isinstance(text, str) or encoding not in ("latin1", "latin-1"):
            raise PickleError("its pickle encodes something in a way that NumPy does not: refused")
        self.budget.hold(len(text))
        return text.encode("latin1")

    # Names and calls

    def name(self, module: Any, name: Any) -> Global:
        if not isinstance(module, str) or not isinstance(name, str):
            raise PickleError("its pickle is malformed")
        module = {"__builtin__": "builtins", "copy_reg": "copyreg"}.get(module, module)
        whole = f"{module}.{name}"
        if whole not in self.names:
            if self.words.names is not None and whole not in self.words.names and whole not in _CONTAINERS:
                raise PickleError(f"its pickle asks for {shown(whole)}, which is not part of an array: refused")
            self.budget.hold(_OBJECT + len(whole))
            self.names[whole] = Global(whole)
        return self.names[whole]

    def named(self) -> Global:
        module = self.line().decode()
        return self.name(module, self.line().decode())

    def call(self, function: Any, args: Any) -> Any:
        name = function.name if isinstance(function, Global) else type(function).__name__
        if not isinstance(args, tuple | list):
            raise PickleError("its pickle is malformed")
        handler = self.words.calls.get(name)
        if handler is not None:
            return handler(*args)
        make = _CONTAINERS.get(name)
        if make is not None:
            return make(self, *args)
        if name in _INERT and self.words.names is None:
            return Stub(name, tuple(args))
        raise RefusedCallError(name[:200])

    def new(self, cls: Any, args: Any) -> None:
        name = cls.name if isinstance(cls, Global) else type(cls).__name__
        if name in _CONTAINERS or self.words.names is not None:
            self.stack.append(self.call(cls, args))
        else:
            self.stack.append(Stub(name, tuple(args) if isinstance(args, tuple | list) else ()))

    def build(self) -> None:
        state, target = self.pop(), self.stack[-1]
        if self.words.fill is not None and self.words.fill(target, state):
            return
        if self.words.names is not None:
            raise PickleError("its pickle sets the state of something that is not part of an array: refused")
        if not isinstance(target, Stub):
            return  # attributes of a plain container, such as the `_metadata` of a state dict: nothing of ours
        slots = None
        if isinstance(state, tuple) and len(state) == 2 and not isinstance(state[0], str):
            state, slots = state
        for part in (state, slots):
            if isinstance(part, dict):
                self.budget.hold(_ENTRY * len(part))
                target.state.update({key: value for key, value in part.items() if isinstance(key, str)})

    def refer(self, identity: Any) -> None:
        if self.words.persistent is None:
            raise PickleError("its pickle refers to data outside itself")
        self.stack.append(self.words.persistent(identity))


def _key(value: Any) -> Any:
    """Return what stands for a key: itself where it is plain, else something that is only equal to itself."""
    kind = type(value)
    if kind is str:
        return value
    if kind is int and value.bit_length() > 64:
        return Stub("int")
    if kind in _PLAIN or kind is Global:
        return value
    if kind is tuple and len(value) <= 8 and all(type(part) in _PLAIN for part in value):
        return value
    return value if isinstance(value, Stub) else Stub(kind.__name__)


_CONTAINERS: dict[str, Call] = {
    "collections.OrderedDict": lambda m, pairs=(): m.pairs(pairs),
    "collections.defaultdict": lambda m, factory=None, pairs=(): m.pairs(pairs),
    "collections.Counter": lambda m, pairs=(): m.pairs(pairs),
    "builtins.dict": lambda m, pairs=(): m.pairs(pairs),
    "builtins.list": lambda m, items=(): list(m.sized(items)),
    "builtins.tuple": lambda m, items=(): tuple(m.sized(items)),
    "builtins.set": lambda m, items=(): set(m.keys(items)),
    "builtins.frozenset": lambda m, items=(): frozenset(m.keys(items)),
    "builtins.complex": lambda m, real=0.0, imag=0.0: complex(real, imag),
    "_codecs.encode": lambda m, text, encoding="latin1": m.encoded(text, encoding),
}
