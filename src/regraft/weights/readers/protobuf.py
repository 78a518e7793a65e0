"""The protobuf wire format, as far as weight files need it: fields of a message, and packed numbers.

Schemas stay with the readers (`onnx`, `caffemodel`, `tf_checkpoint`): a field here is a number and its bytes.
Nothing is copied, and every field is a step of the file's budget.
Source: the encoding page of the Protocol Buffers documentation (protobuf.dev/programming-guides/encoding).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regraft.errors import WeightsError
from regraft.weights.limits import LimitError, budget

__all__ = [
    "BYTES",
    "FIXED32",
    "FIXED64",
    "VARINT",
    "Message",
    "ProtobufError",
    "fields",
    "loaded",
    "numbers",
    "read_varint",
    "varints",
]

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_WIDTH = {FIXED64: 8, FIXED32: 4}
_FIELD_STEPS = 4
_MAX_LIST = 1 << 16
_PIECE = 1 << 20
_SHORT = 64
_MAX_TEXT = 1 << 25  # a sign may take four bytes in memory
# Bytes in memory of a message, of a field of it, and of a number of a list.
_MESSAGE_BYTES, _FIELD_BYTES, _NUMBER_BYTES = 560, 140, 48


class ProtobufError(ValueError):
    """Bytes that are no protobuf message; readers turn it into a `WeightsError` that names the file."""


class _CutError(ProtobufError):
    """A number that goes on behind the end."""


def read_varint(buffer: memoryview, position: int) -> tuple[int, int]:
    """Return one unsigned varint of at most 64 bits, and the position after it."""
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
            raise ProtobufError("a varint of more than 10 bytes")
    raise _CutError("a truncated varint")


def fields(buffer: memoryview, *, cut: bool = False) -> Iterator[tuple[int, int, int, int]]:
    """Yield the fields of one message, as (number, wire type, start, end); for a varint `start` is the value itself.

    With `cut`, the buffer may end inside a field: the range of bytes then ends with the buffer.
    """
    try:
        yield from _fields(buffer, cut)
    except _CutError:
        if not cut:
            raise


def _fields(buffer: memoryview, cut: bool) -> Iterator[tuple[int, int, int, int]]:
    position, length, spent = 0, len(buffer), budget()
    while position < length:
        try:
            spent.step(_FIELD_STEPS)
        except LimitError as error:
            raise ProtobufError(str(error)) from error
        tag, position = read_varint(buffer, position)
        number, kind = tag >> 3, tag & 7
        if number == 0 or number > 0x1FFF_FFFF:
            raise ProtobufError(f"field number {number}")
        if kind == VARINT:
            value, position = read_varint(buffer, position)
            yield number, kind, value, position
            continue
        if kind == BYTES:
            size, position = read_varint(buffer, position)
        elif kind in _WIDTH:
            size = _WIDTH[kind]
        else:
            raise ProtobufError(f"wire type {kind}")
        if size > length - position:
            if cut and kind == BYTES:
                yield number, kind, position, length
                return
            raise ProtobufError(f"field {number} has {size} bytes, and only {length - position} are left")
        yield number, kind, position, position + size
        position += size


class Message:
    """One message: its fields by number, each a list in file order.

    Args:
        buffer: The bytes of the message.
        offset: Where they start in the file, so that `place` can say where a field lies.
    """

    def __init__(self, buffer: memoryview, offset: int = 0) -> None:
        self.buffer = buffer
        self.offset = offset
        self._found: dict[int, list[tuple[int, int, int]]] = {}
        for number, kind, start, end in fields(buffer):
            self._found.setdefault(number, []).append((kind, start, end))

    def kept(self) -> Message:
        """Return this message, with its memory on the file's account: for one that outlives the reading of its
        parent.
        """
        budget().hold(_MESSAGE_BYTES + _FIELD_BYTES * sum(map(len, self._found.values())))
        return self

    def __contains__(self, number: int) -> bool:
        return number in self._found

    def kinds(self, number: int) -> list[int]:
        """Return the wire types of a field's values."""
        return [kind for kind, _, _ in self._found.get(number, ())]

    def places(self, number: int) -> list[tuple[int, int]]:
        """Return the position of each length-delimited value of a field in the file: (offset, number of bytes)."""
        return [(self.offset + start, end - start) for start, end in self._ranges(number)]

    def raw(self, number: int) -> list[memoryview]:
        return [self.buffer[start:end] for start, end in self._ranges(number)]

    def messages(self, number: int) -> Iterator[Message]:
        for start, end in self._ranges(number):
            yield Message(self.buffer[start:end], self.offset + start)

    def message(self, number: int) -> Message | None:
        """Return the sub-message, or None; the last one counts when there are several."""
        ranges = self._ranges(number)
        if not ranges:
            return None
        start, end = ranges[-1]
        return Message(self.buffer[start:end], self.offset + start)

    def texts(self, number: int) -> list[str]:
        return [_text(raw) for raw in self.raw(number)]

    def text(self, number: int, default: str = "") -> str:
        found = self.texts(number)
        return found[-1] if found else default

    def num_bytes(self, number: int) -> int:
        """Return the number of bytes of a field's values."""
        return sum(end - start if kind != VARINT else 1 for kind, start, end in self._found.get(number, ()))

    def num_values(self, number: int, dtype: np.dtype[Any] | None) -> int:
        """Return the number of values in a repeated field, packed or not: of a fixed width, or varints (None)."""
        return self.count(number) if dtype is None else self.num_bytes(number) // dtype.itemsize

    def count(self, number: int) -> int:
        """Return the number of values in a repeated field of integers, packed or not."""
        return sum(
            1 if kind != BYTES else int((np.frombuffer(self.buffer[start:end], np.uint8) < 0x80).sum())
            for kind, start, end in self._found.get(number, ())
        )

    def integers(self, number: int) -> list[int]:
        """Return signed 64-bit numbers of a short repeated field, packed or not.

        Raises:
            ProtobufError: It is no field of integers, or a longer list than any setting or shape.
        """
        if self.num_bytes(number) > _MAX_LIST < self.count(number):
            raise ProtobufError(f"field {number} holds {self.count(number):,} numbers")
        values: list[int] = []
        for kind, start, end in self._found.get(number, ()):
            if kind == VARINT:
                values.append(_signed(start))
            elif kind == BYTES:
                values.extend(varints(self.buffer[start:end]).tolist())
            else:
                raise ProtobufError(f"field {number} is not an integer")
        return values

    def varints(self, number: int) -> NDArray[np.int64]:
        """Return signed 64-bit numbers of a long repeated field, packed or not."""
        self.require(number, None)
        pieces: list[NDArray[Any]] = []
        for kind, start, end in self._found.get(number, ()):
            pieces.append(varints(self.buffer[start:end]) if kind == BYTES else np.array([_signed(start)], np.int64))
        return np.concatenate(pieces) if pieces else np.empty(0, np.int64)

    def integer(self, number: int, default: int = 0) -> int:
        found = self.integers(number)
        return found[-1] if found else default

    def floats(self, number: int) -> list[float]:
        """Return 32-bit floats of a short repeated field, packed or not.

        Raises:
            ProtobufError: It is no field of floats, or a longer list than any setting.
        """
        if self.num_bytes(number) > 4 * _MAX_LIST:
            raise ProtobufError(f"field {number} is longer than any setting")
        values = self.fixed(number, np.dtype("<f4"))
        budget().hold(_NUMBER_BYTES * values.size)
        return [float(value) for value in values]

    def number(self, number: int, default: float) -> float:
        found = self.floats(number)
        return found[-1] if found else default

    def fixed(self, number: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        """Return all numbers of fixed width of a repeated field, packed or not, as one array."""
        self.require(number, dtype)
        gathered = bytearray()
        for _, start, end in self._found.get(number, ()):
            gathered += self.buffer[start:end]
        return np.frombuffer(gathered, dtype=dtype)

    def require(self, number: int, dtype: np.dtype[Any] | None) -> None:
        """Check that a field holds numbers of a fixed width, or varints (None).

        Raises:
            ProtobufError: It holds something else.
        """
        for kind, start, end in self._found.get(number, ()):
            if dtype is None and kind not in (VARINT, BYTES):
                raise ProtobufError(f"field {number} is not an integer")
            if dtype is None:
                continue
            if kind == VARINT or (end - start) % dtype.itemsize or (kind != BYTES and _WIDTH[kind] != dtype.itemsize):
                raise ProtobufError(f"field {number} does not hold numbers of {dtype.itemsize} bytes")

    def _ranges(self, number: int) -> list[tuple[int, int]]:
        found = self._found.get(number, [])
        if any(kind != BYTES for kind, _, _ in found):
            raise ProtobufError(f"field {number} has no length")
        return [(start, end) for _, start, end in found]


def varints(buffer: memoryview, dtype: np.dtype[Any] | None = None) -> NDArray[Any]:
    """Decode packed varints into signed 64-bit numbers, or into a narrower dtype that they fit in."""
    if len(buffer) <= _SHORT:
        return _few(buffer, np.dtype(np.int64) if dtype is None else dtype)
    data = np.frombuffer(buffer, dtype=np.uint8)
    whole = np.empty(int((data < 0x80).sum()), np.int64 if dtype is None else dtype)
    at = filled = 0
    while at < data.size:  # in pieces: the work of a piece takes a dozen times its bytes
        piece = data[at : at + _PIECE]
        ends = np.flatnonzero(piece < 0x80)
        if not ends.size:
            raise ProtobufError("a truncated varint")
        piece = piece[: ends[-1] + 1]
        whole[filled : filled + ends.size] = _decoded(piece, ends).astype(whole.dtype, copy=False)
        at, filled = at + piece.size, filled + ends.size
    return whole


def _few(buffer: memoryview, dtype: np.dtype[Any]) -> NDArray[Any]:
    values, at = [], 0
    while at < len(buffer):
        value, at = read_varint(buffer, at)
        values.append(_signed(value))
    return np.array(values, np.int64).astype(dtype, copy=False)


def _decoded(data: NDArray[np.uint8], ends: NDArray[np.intp]) -> NDArray[np.int64]:
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > 10:
        raise ProtobufError("a varint of more than 10 bytes")
    values = np.zeros(ends.size, dtype=np.uint64)
    for place in range(int(lengths.max())):
        here = np.flatnonzero(lengths > place)
        values[here] |= (data[starts[here] + place] & 0x7F).astype(np.uint64) << np.uint64(7 * place)
    return values.view(np.int64)


def numbers(
    message: Message,
    number: int,
    dtype: np.dtype[Any] | None,
    fetch: Callable[[int, int], Any],
    narrow: np.dtype[Any] | None = None,
) -> Callable[[], NDArray[Any]]:
    """Return a loader of a repeated field's numbers, which reads packed ones from the file when it is called.

    Args:
        message: The message that holds them.
        number: The field.
        dtype: Their dtype when they have a fixed width; None for varints (int64 comes back).
        fetch: Reads (offset, number of bytes) from where the message lies.
        narrow: What varints are narrowed to as they are read.

    Raises:
        ProtobufError: The field holds something else, or is both packed and unpacked.
    """
    message.require(number, dtype)
    kinds = set(message.kinds(number))
    if BYTES not in kinds:
        values = message.varints(number) if dtype is None else message.fixed(number, dtype)
        return lambda: values
    if len(kinds) > 1:
        raise ProtobufError(f"field {number} is both packed and unpacked")
    places = message.places(number)

    def read() -> NDArray[Any]:
        parts = (fetch(offset, size) for offset, size in places)
        decoded = [varints(memoryview(part), narrow) if dtype is None else np.frombuffer(part, dtype) for part in parts]
        return decoded[0] if len(decoded) == 1 else np.concatenate(decoded)

    return read


def loaded(values: Callable[[], NDArray[Any]], count: int, where: str) -> NDArray[Any]:
    """Return the numbers of a field, when they are as many as its tensor needs.

    Raises:
        WeightsError: They are not, or damaged.
    """
    try:
        got = values()
        why = "" if got.size == count else f"it has {got.size} values, but its shape needs {count}"
    except ProtobufError as error:
        why = str(error)
    if why:
        raise WeightsError(f"The {where} is damaged: {why}.", "", "download or copy the file again")
    return got


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _text(raw: memoryview) -> str:
    if len(raw) > _MAX_TEXT:
        raise ProtobufError(f"a text of {len(raw):,} bytes")
    try:
        return str(raw, "utf-8")
    except UnicodeDecodeError as error:
        raise ProtobufError("a name that is not UTF-8") from error
