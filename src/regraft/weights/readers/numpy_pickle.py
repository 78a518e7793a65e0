"""A closed machine for the pickles in `.npy` files: arrays, scalars and plain containers, nothing else.

It is not Python's unpickler: no name is ever imported and nothing is ever called. Seven names of numpy and the standard
library stand for constructions that are done here with plain data; any other name, and any instruction that NumPy's
pickles do not need, is an error. Array bytes are not copied: an array remembers where in the file they are.
Source: the instruction descriptions in CPython's Lib/pickletools.py; `array_reduce` and `array_setstate` of NumPy.
"""

from __future__ import annotations

import codecs
import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from regraft.weights.readers.span import SourceFile, Span

__all__ = ["Array", "PickleError", "Scalar", "unpickle"]

_MAX_STEPS = 3_000_000
_MAX_ITEMS = 1_000_000
_MAX_NUMBER = 32
_MAX_VALUES = 2**56
_MAX_NAME = 64 * 1024


class PickleError(ValueError):
    """A pickle that is damaged or wants more than arrays; readers turn it into a `WeightsError`."""


@dataclass(frozen=True)
class Raw:
    """Bytes of the file."""

    start: int
    size: int


@dataclass(frozen=True)
class _Name:
    """One of the allowed names: a word, not the thing that it names."""

    text: str


@dataclass
class _Type:
    """A NumPy dtype under construction."""

    dtype: np.dtype[Any]


@dataclass
class Array:
    """An array: its numbers as a byte range of the file (or bytes), or its objects."""

    shape: tuple[int, ...] = ()
    dtype: np.dtype[Any] = np.dtype("O")  # noqa: RUF009 -- dtypes are immutable
    fortran: bool = False
    data: Raw | bytes | None = None
    items: list[Any] | None = None

    def values(self, source: SourceFile) -> Span | bytes:
        """Where the numbers are: in the file, or (text-mode pickles) here."""
        if isinstance(self.data, Raw):
            return Span(source, self.data.start, self.data.size)
        return self.data or b""


class Scalar(Array):
    """A NumPy scalar: an array of no axes."""


_NAMES = {
    f"{module} {name}": kind
    for kind, modules, name in (
        ("array", ("numpy.core.multiarray", "numpy._core.multiarray"), "_reconstruct"),
        ("scalar", ("numpy.core.multiarray", "numpy._core.multiarray"), "scalar"),
        ("buffer", ("numpy.core.numeric", "numpy._core.numeric"), "_frombuffer"),
        ("ndarray", ("numpy",), "ndarray"),
        ("dtype", ("numpy",), "dtype"),
        ("dict", ("collections",), "OrderedDict"),
        ("encode", ("_codecs",), "encode"),
    )
    for module in modules
}


def unpickle(view: memoryview, start: int) -> Any:
    """Read the one pickle that begins at `start` and ends the file.

    Raises:
        PickleError: It is damaged, or wants anything but arrays and plain containers.
    """
    machine = _Machine(view, start)
    try:
        return machine.run()
    except (struct.error, IndexError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise PickleError("its pickle is damaged") from error
    except (UnicodeError, SyntaxError) as error:
        raise PickleError("its pickle holds damaged text") from error


_MARK = object()


class _Machine:
    """The stack, the memo, and one method for each instruction."""

    def __init__(self, view: memoryview, start: int) -> None:
        self._view = view
        self._at = start
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._num_items = 0

    def run(self) -> Any:
        for _ in range(_MAX_STEPS):
            code = self._take(1)[0]
            if code == 0x2E:  # STOP
                return self._result()
            step = _STEPS.get(code)
            if step is None:
                raise PickleError(f"its pickle uses the instruction {bytes([code])!r}, which arrays never need")
            step(self)
        raise PickleError("its pickle has too many instructions")

    def _result(self) -> Any:
        if len(self._stack) != 1 or self._stack[0] is _MARK:
            raise PickleError("its pickle leaves no single value")
        if self._at != len(self._view):
            raise PickleError(f"{len(self._view) - self._at} bytes follow its pickle")
        return self._stack[0]

    # Bytes of the file

    def _take(self, size: int) -> bytes:
        raw = self._skip(size)
        return bytes(self._view[raw.start : raw.start + raw.size])

    def _skip(self, size: int) -> Raw:
        if size < 0 or self._at + size > len(self._view):
            raise PickleError("its pickle is cut")
        raw = Raw(self._at, size)
        self._at += size
        return raw

    def _number(self, form: str) -> int:
        return int(struct.unpack("<" + form, self._take(struct.calcsize("<" + form)))[0])

    def _line(self) -> bytes:
        # Text pickles (protocol 0) hold a whole array in one line, so the window grows until it holds the line.
        size = 1024
        while True:
            window = bytes(self._view[self._at : self._at + size])
            end = window.find(b"\n")
            if end >= 0:
                self._at += end + 1
                return window[:end]
            if len(window) < size:
                raise PickleError("its pickle is cut")
            size *= 8

    def _text(self, raw: Raw) -> str:
        return bytes(self._view[raw.start : raw.start + raw.size]).decode("utf-8", "surrogatepass")

    # The stack

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _pop(self) -> Any:
        value = self._stack.pop()
        if value is _MARK:
            raise PickleError("its pickle is out of step")
        return value

    def _pop_mark(self) -> list[Any]:
        items: list[Any] = []
        while (value := self._stack.pop()) is not _MARK:
            items.append(value)
        self._num_items += len(items)
        if self._num_items > _MAX_ITEMS:
            raise PickleError(f"its pickle has more than {_MAX_ITEMS} items")
        return items[::-1]

    # Instructions

    def ignore_byte(self) -> None:
        self._take(1)

    def ignore_frame(self) -> None:
        self._take(8)

    def mark(self) -> None:
        self._push(_MARK)

    def text_number(self) -> None:
        line = self._line()
        if line in (b"00", b"01"):
            self._push(line == b"01")
            return
        if len(line) > _MAX_NUMBER:
            raise PickleError("its pickle holds an endless number")
        try:
            self._push(int(line.rstrip(b"L")))
        except ValueError as error:
            raise PickleError("its pickle holds a damaged number") from error

    def text_float(self) -> None:
        line = self._line()
        try:
            self._push(float(line[:_MAX_NUMBER]))
        except ValueError as error:
            raise PickleError("its pickle holds a damaged number") from error

    def binary_float(self) -> None:
        self._push(struct.unpack(">d", self._take(8))[0])

    def long(self, form: str) -> None:
        size = self._number(form)
        if size > _MAX_NUMBER:
            raise PickleError("its pickle holds an endless number")
        self._push(int.from_bytes(self._take(size), "little", signed=True))

    def text_string(self) -> None:
        line = self._line().strip()
        if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
            raise PickleError("its pickle holds a damaged string")
        self._push(codecs.escape_decode(line[1:-1])[0])

    def text_unicode(self) -> None:
        self._push(self._line().decode("raw-unicode-escape"))

    def raw(self, form: str) -> None:
        self._push(self._skip(self._number(form)))

    def unicode(self, form: str) -> None:
        self._push(self._text(self._skip(self._number(form))))

    def collect(self, kind: Callable[[list[Any]], Any]) -> None:
        self._push(kind(self._pop_mark()))

    def tuple_of(self, count: int) -> None:
        items = [self._pop() for _ in range(count)]
        self._push(tuple(items[::-1]))

    def dict_from_mark(self) -> None:
        content: dict[Any, Any] = {}
        self._fill(content, self._pop_mark())
        self._push(content)

    def append(self) -> None:
        value = self._pop()
        self._list().append(value)

    def appends(self) -> None:
        items = self._pop_mark()
        self._list().extend(items)

    def set_item(self) -> None:
        value, key = self._pop(), self._pop()
        self._fill(self._dict(), [key, value])

    def set_items(self) -> None:
        items = self._pop_mark()
        self._fill(self._dict(), items)

    def _list(self) -> list[Any]:
        if not isinstance(self._stack[-1], list):
            raise PickleError("its pickle is out of step")
        return self._stack[-1]

    def _dict(self) -> dict[Any, Any]:
        if not isinstance(self._stack[-1], dict):
            raise PickleError("its pickle is out of step")
        return self._stack[-1]

    def _fill(self, content: dict[Any, Any], items: list[Any]) -> None:
        for key, value in zip(items[0::2], items[1::2], strict=True):
            word = self._bytes(key).decode("latin1") if isinstance(key, Raw | bytes) else key
            if not isinstance(word, str | int):
                raise PickleError("its pickle has a dict with keys that are no names")
            if word in content:
                raise PickleError(f"its pickle holds {word!r} twice")
            content[word] = value

    def put(self, index: int) -> None:
        self._memo[index] = self._stack[-1]

    def memoize(self) -> None:
        self.put(len(self._memo))

    def get(self, index: int) -> None:
        self._push(self._memo[index])

    def text_index(self) -> int:
        line = self._line()
        if not line.isdigit() or len(line) > _MAX_NUMBER:
            raise PickleError("its pickle is damaged")
        return int(line)

    def name(self) -> None:
        module = self._line()
        self._push(self._known(f"{module.decode('utf-8')} {self._line().decode('utf-8')}"))

    def name_from_stack(self) -> None:
        name, module = self._pop(), self._pop()
        self._push(self._known(f"{module} {name}"))

    def _known(self, text: str) -> _Name:
        if text not in _NAMES:
            shown = text.replace(" ", ".")[:200]
            raise PickleError(f"its pickle wants {shown!r}, which is no part of an array: refused")
        return _Name(_NAMES[text])

    def reduce(self) -> None:
        arguments, name = self._pop(), self._pop()
        if not isinstance(name, _Name) or not isinstance(arguments, tuple):
            raise PickleError("its pickle calls something that is no part of an array: refused")
        self._push(self._built(name.text, arguments))

    def _built(self, kind: str, arguments: tuple[Any, ...]) -> Any:
        if kind == "array" and len(arguments) == 3 and arguments[0] == _Name("ndarray"):
            return Array()
        if kind == "dtype" and 1 <= len(arguments) <= 3:
            return _Type(self._dtype(arguments[0]))
        if kind == "scalar" and len(arguments) == 2 and isinstance(arguments[0], _Type):
            return self._filled(Scalar(), (), arguments[0].dtype, False, arguments[1])
        if kind == "buffer" and len(arguments) == 4 and isinstance(arguments[1], _Type):
            data, of, shape, order = arguments
            return self._filled(Array(), shape, of.dtype, order == "F", data)
        if kind == "encode" and len(arguments) == 2 and arguments[1] in ("latin1", "latin-1"):
            return str(arguments[0]).encode("latin1")
        if kind == "dict" and len(arguments) <= 1:
            content: dict[Any, Any] = {}
            pairs = arguments[0] if arguments else []
            self._fill(content, [part for pair in pairs for part in pair])
            return content
        raise PickleError(f"its pickle builds a {kind} in a way that NumPy does not: refused")

    def build(self) -> None:
        state, target = self._pop(), self._stack[-1]
        if isinstance(target, _Type) and isinstance(state, tuple) and len(state) >= 3:
            target.dtype = self._ordered(target.dtype, state)
        elif isinstance(target, Array) and isinstance(state, tuple) and len(state) == 5:
            _, shape, of, fortran, data = state
            self._filled(target, shape, of.dtype, bool(fortran), data)
        else:
            raise PickleError("its pickle fills something that is no part of an array: refused")

    def _dtype(self, code: Any) -> np.dtype[Any]:
        text = self._bytes(code).decode("latin1") if isinstance(code, Raw | bytes) else code
        if not isinstance(text, str) or len(text) > 16:
            raise PickleError("its pickle holds a dtype that is no number")
        try:
            dtype = np.dtype(text)
        except (TypeError, ValueError) as error:
            raise PickleError(f"its pickle holds the unknown dtype {text!r}") from error
        if dtype.kind not in "fiubOSU":
            raise PickleError(f"its pickle holds the dtype {text!r}, which is no number")
        return dtype

    def _ordered(self, dtype: np.dtype[Any], state: tuple[Any, ...]) -> np.dtype[Any]:
        order = self._bytes(state[1]).decode("latin1") if isinstance(state[1], Raw | bytes) else state[1]
        if order not in ("<", ">", "|", "=") or any(part is not None for part in state[2:5]):
            raise PickleError("its pickle holds a dtype with fields")
        if order == ">":
            return dtype.newbyteorder(">")
        return dtype.newbyteorder("<") if order == "<" else dtype

    def _filled(self, array: Array, shape: Any, dtype: np.dtype[Any], fortran: bool, data: Any) -> Array:
        if not isinstance(shape, tuple) or len(shape) > 32 or not all(isinstance(n, int) and n >= 0 for n in shape):
            raise PickleError("its pickle holds an array without a shape")
        if math.prod(max(length, 1) for length in shape) > _MAX_VALUES:
            raise PickleError("its pickle holds an array of a size that cannot be")
        count = math.prod(shape)
        if array.data is not None or array.items is not None:
            raise PickleError("its pickle fills an array twice")
        array.shape, array.dtype, array.fortran = shape, dtype, fortran
        if dtype.kind == "O":
            if not isinstance(data, list) or len(data) != count:
                raise PickleError("its pickle holds an array of objects of another length than its shape")
            array.items = data
            return array
        size = data.size if isinstance(data, Raw) else len(data) if isinstance(data, bytes) else -1
        if size != count * dtype.itemsize:
            raise PickleError(f"its pickle declares an array of {count} values and holds {size} bytes")
        array.data = data
        return array

    def _bytes(self, data: Raw | bytes) -> bytes:
        if isinstance(data, bytes):
            return data
        if data.size > _MAX_NAME:
            raise PickleError("its pickle holds a name that is too long")
        return bytes(self._view[data.start : data.start + data.size])


_STEPS: dict[int, Callable[[_Machine], None]] = {
    0x80: _Machine.ignore_byte,  # PROTO
    0x95: _Machine.ignore_frame,  # FRAME
    ord("("): _Machine.mark,
    ord("N"): lambda m: m._push(None),
    0x88: lambda m: m._push(True),
    0x89: lambda m: m._push(False),
    ord("I"): _Machine.text_number,
    ord("L"): _Machine.text_number,
    ord("J"): lambda m: m._push(m._number("i")),
    ord("K"): lambda m: m._push(m._number("B")),
    ord("M"): lambda m: m._push(m._number("H")),
    0x8A: lambda m: m.long("B"),
    0x8B: lambda m: m.long("i"),
    ord("F"): _Machine.text_float,
    ord("G"): _Machine.binary_float,
    ord("S"): _Machine.text_string,
    ord("T"): lambda m: m.raw("i"),
    ord("U"): lambda m: m.raw("B"),
    ord("B"): lambda m: m.raw("I"),
    ord("C"): lambda m: m.raw("B"),
    0x8E: lambda m: m.raw("Q"),
    0x96: lambda m: m.raw("Q"),
    ord("V"): _Machine.text_unicode,
    ord("X"): lambda m: m.unicode("I"),
    0x8C: lambda m: m.unicode("B"),
    0x8D: lambda m: m.unicode("Q"),
    ord("]"): lambda m: m._push([]),
    ord("l"): lambda m: m.collect(list),
    ord("a"): _Machine.append,
    ord("e"): _Machine.appends,
    ord(")"): lambda m: m._push(()),
    ord("t"): lambda m: m.collect(tuple),
    0x85: lambda m: m.tuple_of(1),
    0x86: lambda m: m.tuple_of(2),
    0x87: lambda m: m.tuple_of(3),
    ord("}"): lambda m: m._push({}),
    ord("d"): _Machine.dict_from_mark,
    ord("s"): _Machine.set_item,
    ord("u"): _Machine.set_items,
    ord("p"): lambda m: m.put(m.text_index()),
    ord("q"): lambda m: m.put(m._number("B")),
    ord("r"): lambda m: m.put(m._number("I")),
    0x94: _Machine.memoize,
    ord("g"): lambda m: m.get(m.text_index()),
    ord("h"): lambda m: m.get(m._number("B")),
    ord("j"): lambda m: m.get(m._number("I")),
    ord("c"): _Machine.name,
    0x93: _Machine.name_from_stack,
    ord("R"): _Machine.reduce,
    ord("b"): _Machine.build,
}
