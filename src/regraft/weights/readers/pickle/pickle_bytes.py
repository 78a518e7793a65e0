"""The bytes of a pickle, read from front to back, and the plain values that are written in them."""

from __future__ import annotations

import codecs
import struct

from regraft.weights.limits import Budget
from regraft.weights.readers.pickle.pickled import PickleError, Raw

__all__ = ["PickleBytes"]

_MAX_NUMBER = 32  # bytes of an integer: the states of random generators have 16
_MAX_LINE = 80  # digits of a number in text
_COPIED = 1024  # longer byte strings stay in the file


class PickleBytes:
    """A view of the file, and how far it was read."""

    __slots__ = ("_budget", "at", "view")

    def __init__(self, view: memoryview, start: int, budget: Budget) -> None:
        self.view, self.at = view, start
        self._budget = budget

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

    def text(self, size: int) -> str:
        text = self.take(size).decode("utf-8", "surrogatepass")
        self._budget.hold(len(text) if text.isascii() else 4 * len(text))
        return text

    def text_line(self) -> str:
        return self._held(self.line().decode("raw-unicode-escape"))

    def quoted(self) -> str:
        line = self.line().strip()
        if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
            raise PickleError("its pickle holds a damaged string")
        return self._held(codecs.escape_decode(line[1:-1])[0].decode("latin1"))

    def string(self, size: int) -> str | Raw:
        """Read a string of Python 2: text or bytes, which is not known; as text, each character is a byte."""
        return Raw(self.skip(size), size) if size > _COPIED else self.take(size).decode("latin1")

    def raw(self, size: int) -> bytes | Raw:
        return Raw(self.skip(size), size) if size > _COPIED else self.take(size)

    def whole(self) -> int:
        line = self.short_line()
        return line == b"01" if line in (b"00", b"01") else int(line.rstrip(b"L"))

    def long(self, size: int) -> int:
        if not 0 <= size <= _MAX_NUMBER:
            raise PickleError(f"its pickle holds a number of {size} bytes")
        return int.from_bytes(self.take(size), "little", signed=True)

    def _held(self, text: str) -> str:
        self._budget.hold(len(text) if text.isascii() else 4 * len(text))
        return text
