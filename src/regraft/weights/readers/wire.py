"""The protobuf wire format, as far as weight files need it: fields of a message, and packed numbers.

Schemas stay with the readers (`onnx`, `caffemodel`, `tf_checkpoint`): a field here is a number and its bytes.
Nothing is copied, and work is bounded by a budget of fields, so that a hostile file costs seconds at most.
Source: the encoding page of the Protocol Buffers documentation (protobuf.dev/programming-guides/encoding).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "BYTES",
    "FIXED32",
    "FIXED64",
    "VARINT",
    "Budget",
    "Message",
    "WireError",
    "fields",
    "numbers",
    "read_varint",
    "varints",
]

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_WIDTH = {FIXED64: 8, FIXED32: 4}


class WireError(ValueError):
    """Bytes that are no protobuf message; readers turn it into a `WeightsError` that names the file."""


class Budget:
    """How many fields one file may still hold (a large real network has some hundred thousand)."""

    def __init__(self, num_fields: int = 1_000_000) -> None:
        self.num_fields = num_fields

    def spend(self) -> None:
        self.num_fields -= 1
        if self.num_fields < 0:
            raise WireError("more fields than any real network has")


def read_varint(buffer: memoryview, position: int) -> tuple[int, int]:
    """One unsigned varint of at most 64 bits, and the position after it."""
    value = shift = 0
    end = len(buffer)
    while position < end:
        byte = buffer[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, position
        shift += 7
        if shift >= 70:
            raise WireError("a number of more than 10 bytes")
    raise WireError("a number that is cut off")


def fields(
    buffer: memoryview, budget: Budget | None = None, *, cut: bool = False
) -> Iterator[tuple[int, int, int, int]]:
    """The fields of one message, as (number, wire type, start, end); for a varint `start` is the value itself.

    With `cut`, the buffer may end inside a field of bytes: its range then ends with the buffer.
    """
    position, length = 0, len(buffer)
    while position < length:
        if budget is not None:
            budget.spend()
        tag, position = read_varint(buffer, position)
        number, kind = tag >> 3, tag & 7
        if number == 0 or number > 0x1FFF_FFFF:
            raise WireError(f"field number {number}")
        if kind == VARINT:
            value, position = read_varint(buffer, position)
            yield number, kind, value, position
            continue
        if kind == BYTES:
            size, position = read_varint(buffer, position)
        elif kind in _WIDTH:
            size = _WIDTH[kind]
        else:
            raise WireError(f"wire type {kind}")
        if size > length - position:
            if cut and kind == BYTES:
                yield number, kind, position, length
                return
            raise WireError(f"field {number} says {size} bytes, and {length - position} are left")
        yield number, kind, position, position + size
        position += size


class Message:
    """One message: its fields by number, each a list in file order.

    Args:
        buffer: The bytes of the message.
        offset: Where they start in the file, so that `place` can say where a field lies.
        budget: Fields that the whole file may still hold.
    """

    def __init__(self, buffer: memoryview, offset: int = 0, budget: Budget | None = None) -> None:
        self.buffer = buffer
        self.offset = offset
        self.budget = budget if budget is not None else Budget()
        self._found: dict[int, list[tuple[int, int, int]]] = {}
        for number, kind, start, end in fields(buffer, self.budget):
            self._found.setdefault(number, []).append((kind, start, end))

    def __contains__(self, number: int) -> bool:
        return number in self._found

    def kinds(self, number: int) -> list[int]:
        """The wire types of a field's values."""
        return [kind for kind, _, _ in self._found.get(number, ())]

    def places(self, number: int) -> list[tuple[int, int]]:
        """Where the length-delimited values of a field lie in the file: (offset, number of bytes)."""
        return [(self.offset + start, end - start) for start, end in self._ranges(number)]

    def raw(self, number: int) -> list[memoryview]:
        return [self.buffer[start:end] for start, end in self._ranges(number)]

    def messages(self, number: int) -> Iterator[Message]:
        for start, end in self._ranges(number):
            yield Message(self.buffer[start:end], self.offset + start, self.budget)

    def message(self, number: int) -> Message | None:
        """The sub-message, or None; the last one counts when there are several."""
        ranges = self._ranges(number)
        if not ranges:
            return None
        start, end = ranges[-1]
        return Message(self.buffer[start:end], self.offset + start, self.budget)

    def texts(self, number: int) -> list[str]:
        return [_text(raw) for raw in self.raw(number)]

    def text(self, number: int, default: str = "") -> str:
        found = self.texts(number)
        return found[-1] if found else default

    def integers(self, number: int) -> list[int]:
        """Signed 64-bit numbers of a repeated field, packed or not."""
        values: list[int] = []
        for kind, start, end in self._found.get(number, ()):
            if kind == VARINT:
                values.append(_signed(start))
            elif kind == BYTES:
                values.extend(varints(self.buffer[start:end]).tolist())
            else:
                raise WireError(f"field {number} is no integer")
        return values

    def integer(self, number: int, default: int = 0) -> int:
        found = self.integers(number)
        return found[-1] if found else default

    def floats(self, number: int) -> list[float]:
        """32-bit floats of a repeated field, packed or not."""
        return [float(value) for value in self.fixed(number, np.dtype("<f4"))]

    def number(self, number: int, default: float) -> float:
        found = self.floats(number)
        return found[-1] if found else default

    def fixed(self, number: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        """All numbers of fixed width of a repeated field, packed or not, as one array."""
        gathered = bytearray()
        for kind, start, end in self._found.get(number, ()):
            if kind == VARINT or (end - start) % dtype.itemsize or (kind != BYTES and _WIDTH[kind] != dtype.itemsize):
                raise WireError(f"field {number} does not hold numbers of {dtype.itemsize} bytes")
            gathered += self.buffer[start:end]
        return np.frombuffer(bytes(gathered), dtype=dtype)

    def _ranges(self, number: int) -> list[tuple[int, int]]:
        found = self._found.get(number, [])
        if any(kind != BYTES for kind, _, _ in found):
            raise WireError(f"field {number} has no length")
        return [(start, end) for _, start, end in found]


def varints(buffer: memoryview) -> NDArray[np.int64]:
    """Decode packed varints into signed 64-bit numbers, a whole array at a time."""
    data = np.frombuffer(buffer, dtype=np.uint8)
    if not data.size:
        return np.empty(0, dtype=np.int64)
    ends = np.flatnonzero(data < 0x80)
    if not ends.size or ends[-1] != data.size - 1:
        raise WireError("a number that is cut off")
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > 10:
        raise WireError("a number of more than 10 bytes")
    values = np.zeros(ends.size, dtype=np.uint64)
    for place in range(int(lengths.max())):
        here = np.flatnonzero(lengths > place)
        values[here] |= (data[starts[here] + place] & 0x7F).astype(np.uint64) << np.uint64(7 * place)
    return values.view(np.int64)


def numbers(
    message: Message, number: int, dtype: np.dtype[Any] | None, fetch: Callable[[int, int], Any]
) -> Callable[[], NDArray[Any]]:
    """How to get at all numbers of a repeated field: from the file on demand where they lie in one piece.

    Args:
        message: The message that holds them.
        number: The field.
        dtype: Their dtype when they have a fixed width; None for varints (int64 comes back).
        fetch: Reads (offset, number of bytes) from where the message lies.
    """
    found = message.kinds(number)
    if found == [BYTES]:
        offset, size = message.places(number)[0]
        if dtype is None:
            return lambda: varints(memoryview(fetch(offset, size)))
        if size % dtype.itemsize:
            raise WireError(f"field {number} has {size} bytes for numbers of {dtype.itemsize}")
        return lambda: np.frombuffer(fetch(offset, size), dtype=dtype)
    values = np.array(message.integers(number), dtype=np.int64) if dtype is None else message.fixed(number, dtype)
    return lambda: values


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _text(raw: memoryview) -> str:
    try:
        return str(raw, "utf-8")
    except UnicodeDecodeError as error:
        raise WireError("a name that is not UTF-8") from error
