"""FlatBuffers, as far as TensorFlow Lite needs them: tables whose fields are found by number, vectors, strings.

Nothing is copied, and every offset is checked before it is followed. Offsets point forward only, as writers lay them
out, so nothing can contain itself.
Source: the internals page of the FlatBuffers documentation.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from regraft.weights.limits import budget

__all__ = ["FlatBufferError", "Table", "root"]

_STEPS = 3
_MAX_TEXT = 1 << 16
_MAX_FIELDS = 32
_MAX_TABLES = 250_000
_MAX_VECTOR = 1 << 20
_WIDTHS = {"b": 1, "B": 1, "h": 2, "H": 2, "i": 4, "I": 4, "q": 8, "Q": 8, "f": 4}


class FlatBufferError(ValueError):
    """Bytes that are no FlatBuffer; readers turn it into a `WeightsError` that names the file."""


def root(view: memoryview) -> Table:
    """Return the table that a buffer begins with.

    Raises:
        FlatBufferError: It is damaged.
    """
    return Table(view, _offset(view, 0))


class Table:
    """One table: its fields by number, each absent or somewhere behind it.

    Args:
        view: The bytes of the buffer.
        at: Where the table lies.
    """

    __slots__ = ("_at", "_fields", "_view")

    def __init__(self, view: memoryview, at: int) -> None:
        budget().step(_STEPS)
        self._view, self._at = view, at
        table = at - int(_number(view, at, "i"))
        size = int(_number(view, table, "H"))
        _number(view, table, "H")
        if size < 4 or size % 2 or table < 0 or table + size > len(view):
            raise FlatBufferError("a table without its list of fields")
        self._fields = struct.unpack_from(f"<{min((size - 4) // 2, _MAX_FIELDS)}H", view, table + 4)

    def number(self, field: int, form: str, default: float = 0) -> int | float:
        """Return a number that is stored in the table itself."""
        place = self._place(field)
        return default if place is None else _number(self._view, place, form)

    def integer(self, field: int, form: str = "i", default: int = 0) -> int:
        return int(self.number(field, form, default))

    def table(self, field: int) -> Table | None:
        place = self._place(field)
        return None if place is None else Table(self._view, _offset(self._view, place))

    def text(self, field: int) -> str:
        """Return a string; an empty one where it is absent."""
        start, size = self.span(field, 1)
        if size > _MAX_TEXT:
            raise FlatBufferError(f"a text of {size} bytes")
        budget().hold(size)
        try:
            return str(self._view[start : start + size], "utf-8")
        except UnicodeDecodeError as error:
            raise FlatBufferError("a name that is not UTF-8") from error

    def numbers(self, field: int, form: str) -> NDArray[np.generic]:
        """Return a vector of numbers."""
        width = _WIDTHS[form]
        start, count = self.span(field, width)
        if count > _MAX_VECTOR:
            raise FlatBufferError(f"a list of {count:,} numbers")
        budget().hold(width * count)
        return np.frombuffer(self._view[start : start + width * count], np.dtype(form).newbyteorder("<")).copy()

    def tables(self, field: int) -> Iterator[Table]:
        """Yield the tables of a vector."""
        start, count = self.span(field, 4)
        if count > _MAX_TABLES:
            raise FlatBufferError(f"a list of {count:,} tables")
        for number in range(count):
            yield Table(self._view, _offset(self._view, start + 4 * number))

    def span(self, field: int, width: int) -> tuple[int, int]:
        """Return where the items of a vector begin, and how many they are; (0, 0) where it is absent."""
        place = self._place(field)
        if place is None:
            return 0, 0
        start = _offset(self._view, place)
        count = int(_number(self._view, start, "I"))
        if count * width > len(self._view) - start - 4:
            raise FlatBufferError(
                f"a list of {count} items of {width} bytes, and {len(self._view) - start - 4} are left"
            )
        return start + 4, count

    def _place(self, field: int) -> int | None:
        offset = self._fields[field] if field < len(self._fields) else 0
        return self._at + offset if offset else None


def _offset(view: memoryview, at: int) -> int:
    """Return where an offset leads, which is always behind it."""
    step = int(_number(view, at, "I"))
    if step == 0 or at + step + 4 > len(view):
        raise FlatBufferError("an offset that leads out of the file")
    return at + step


def _number(view: memoryview, at: int, form: str) -> int | float:
    if at < 0 or at + _WIDTHS[form] > len(view):
        raise FlatBufferError("a field outside of the file")
    value: int | float = struct.unpack_from(f"<{form}", view, at)[0]
    return value
