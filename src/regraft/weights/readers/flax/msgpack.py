"""MessagePack, as far as Flax's files need it: plain values, maps, lists, byte ranges that are not copied, extensions.

Source: the specification of MessagePack (msgpack/spec.md).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

from regraft.weights.limits import MAX_DEPTH, budget

__all__ = ["Extension", "MessageError", "Span", "unpack"]

_STEPS = 2
_ITEM_BYTES, _SPAN_BYTES = 120, 200  # in memory
_MAX_TEXT = 1 << 20
_NUMBERS = {
    0xCA: ">f", 0xCB: ">d", 0xCC: ">B", 0xCD: ">H", 0xCE: ">I", 0xCF: ">Q", 0xD0: ">b", 0xD1: ">h", 0xD2: ">i",
    0xD3: ">q",
}  # fmt: skip
_CONSTANTS = {0xC0: None, 0xC2: False, 0xC3: True}
# The codes whose length follows in 1, 2 or 4 bytes.
_LENGTHS = {
    0xC4: ("bytes", ">B"), 0xC5: ("bytes", ">H"), 0xC6: ("bytes", ">I"), 0xC7: ("ext", ">B"), 0xC8: ("ext", ">H"),
    0xC9: ("ext", ">I"), 0xD9: ("text", ">B"), 0xDA: ("text", ">H"), 0xDB: ("text", ">I"), 0xDC: ("list", ">H"),
    0xDD: ("list", ">I"), 0xDE: ("map", ">H"), 0xDF: ("map", ">I"),
}  # fmt: skip


class MessageError(ValueError):
    """Bytes that are no MessagePack; readers turn it into a `WeightsError` that names the file."""


@dataclass(frozen=True, slots=True)
class Span:
    """A byte string, where it lies."""

    start: int
    size: int


@dataclass(frozen=True, slots=True)
class Extension:
    """A value of a kind of the writer's own, and the bytes that hold it."""

    kind: int
    span: Span


def unpack(view: memoryview, start: int = 0, end: int | None = None) -> Any:
    """Return the one value that fills a range of bytes.

    Raises:
        MessageError: It is cut, damaged or nested too deeply, or something follows it.
    """
    unpacker = _Unpacker(view, start, len(view) if end is None else end)
    value = unpacker.value(0)
    if unpacker.at != unpacker.end:
        raise MessageError(f"{unpacker.end - unpacker.at} bytes follow its content")
    return value


class _Unpacker:
    """Reads values from front to back."""

    def __init__(self, view: memoryview, start: int, end: int) -> None:
        self.view, self.at, self.end = view, start, end
        self._budget = budget()

    def value(self, depth: int) -> Any:
        """Read the next value."""
        self._budget.step(_STEPS)
        if depth > MAX_DEPTH:
            raise MessageError("its containers are nested too deeply")
        code = self.view[self._take(1)]
        if code < 0x80:
            return code
        if code >= 0xE0:
            return code - 0x100
        if code in _CONSTANTS:
            return _CONSTANTS[code]
        if code in _NUMBERS:
            return self._number(_NUMBERS[code])
        kind, size = self._sized(code)
        if kind == "map":
            return self._map(size, depth)
        if kind == "list":
            self._counted(size, 1)
            return [self.value(depth + 1) for _ in range(size)]
        if kind == "text":
            return self._text(size)
        self._budget.hold(_SPAN_BYTES)
        if kind == "bytes":
            return Span(self._take(size), size)
        number = self._number(">b")
        return Extension(int(number), Span(self._take(size), size))

    def _sized(self, code: int) -> tuple[str, int]:
        """Return the kind of a value and its length."""
        if code < 0x90:
            return "map", code & 0xF
        if code < 0xA0:
            return "list", code & 0xF
        if code < 0xC0:
            return "text", code & 0x1F
        if 0xD4 <= code <= 0xD8:
            return "ext", 1 << (code - 0xD4)
        if code not in _LENGTHS:
            raise MessageError(f"it holds the code {code:#x}")
        kind, form = _LENGTHS[code]
        return kind, int(self._number(form))

    def _map(self, size: int, depth: int) -> dict[str, Any]:
        self._counted(size, 2)
        found: dict[str, Any] = {}
        for _ in range(size):
            key = self.value(depth + 1)
            if not isinstance(key, str):
                raise MessageError("it holds a map with a key that is not a string")
            if key in found:
                raise MessageError(f"it holds a map with the duplicate key {key[:80]!r}")
            found[key] = self.value(depth + 1)
        return found

    def _counted(self, size: int, width: int) -> None:
        """Refuse a container that declares more than the bytes can hold."""
        if size * width > self.end - self.at:
            raise MessageError(f"it declares {size} items and has {self.end - self.at} bytes left")
        self._budget.hold(_ITEM_BYTES * size)

    def _text(self, size: int) -> str:
        if size > _MAX_TEXT:
            raise MessageError(f"it holds a text of {size} bytes")
        start = self._take(size)
        self._budget.hold(size)
        try:
            return str(self.view[start : start + size], "utf-8")
        except UnicodeDecodeError as error:
            raise MessageError("it holds a name that is not UTF-8") from error

    def _number(self, form: str) -> Any:
        (value,) = struct.unpack_from(form, self.view, self._take(struct.calcsize(form)))
        return value

    def _take(self, size: int) -> int:
        start = self.at
        if size > self.end - start:
            raise MessageError("it is truncated")
        self.at = start + size
        return start
