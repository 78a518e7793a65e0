"""The classic HDF5 file format (what h5py and Keras write by default), parsed from memory.

The HDF5 C library can be made to crash or to hang by damaged metadata, so it does not read a stranger's file: this
is the part of the format that weight files need, over a memoryview, every offset checked and all work counted. Files in
the newer layout raise `NotClassicError`; `hdf5_rewrite` turns those into classic ones in a process of its own.
Source: HDF5 File Format Specification 3.0 (superblocks 0 and 1, object headers 1, symbol tables, B-trees 1, heaps).
"""

from __future__ import annotations

import math
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from regraft.weights.limits import MAX_RANK, Budget, budget, check_shape

__all__ = [
    "BFLOAT16",
    "SIGNATURE",
    "Chunks",
    "DatasetInfo",
    "FormatError",
    "LinkError",
    "NotClassicError",
    "ObjectParser",
]

SIGNATURE = b"\x89HDF\r\n\x1a\n"
UNDEFINED = 0xFFFFFFFFFFFFFFFF
# How h5py knows bfloat16: two opaque bytes.
BFLOAT16 = np.dtype("V2")
_MAX_TEXT = 128 * 2**20
_MAX_COUNT = 1_000_000
_MAX_NAME = 64 * 1024
_MAX_MESSAGES = 3_000_000
# Bytes in memory of a member of a group, and of a piece of a dataset without its place.
_MEMBER_BYTES, _PIECE_BYTES = 200, 250
_DATASPACE, _DATATYPE, _LINK, _EXTERNAL, _LAYOUT, _FILTERS = 0x01, 0x03, 0x06, 0x07, 0x08, 0x0B
_ATTRIBUTE, _CONTINUATION, _SYMBOL_TABLE, _LINK_INFO, _ATTRIBUTE_INFO = 0x0C, 0x10, 0x11, 0x02, 0x15
_FLOATS = {
    (2, 10, 5, 0, 10, 15): "f2",
    (4, 23, 8, 0, 23, 127): "f4",
    (8, 52, 11, 0, 52, 1023): "f8",
}
_BFLOAT16_FLOAT = (2, 7, 8, 0, 7, 127)


class FormatError(ValueError):
    """Bytes that are no HDF5."""


class NotClassicError(Exception):
    """A valid part of HDF5 that only newer files use."""


class LinkError(Exception):
    """A link that may lead out of the file."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message of an object header: its kind and where its content is."""

    kind: int
    start: int
    size: int


@dataclass(frozen=True)
class Chunks:
    """The pieces of a chunked dataset: their shape, the filters in the order of writing, and where they are."""

    shape: tuple[int, ...]
    filters: tuple[tuple[int, tuple[int, ...]], ...]
    pieces: tuple[tuple[tuple[int, ...], int, int, int], ...]  # place, address, stored bytes, mask of skipped filters


@dataclass(frozen=True)
class DatasetInfo:
    """A dataset: shape, numpy dtype (None when it holds no numbers), and one way to its bytes.

    `address` and `stored` are for contiguous data; `inline` holds compact data.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any] | None
    stored: int
    address: int | None = None
    inline: bytes | None = None
    chunks: Chunks | None = None


@dataclass
class ObjectParser:
    """Objects of one HDF5 file by the address of their header."""

    view: memoryview
    base: int = 0
    root: int = 0
    is_classic: bool = True
    _budget: Budget = field(default_factory=budget)
    _text: int = 0
    _num_messages: int = 0
    _headers: dict[int, list[Message]] = field(default_factory=dict)
    _members: dict[int, dict[str, int | None]] = field(default_factory=dict)
    _heaps: dict[int, dict[int, tuple[int, int]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        start = next((at for at in (0, 512, 1024, 2048) if bytes(self.view[at : at + 8]) == SIGNATURE), None)
        if start is None:
            raise FormatError("its signature is missing")
        version = self._unpack("B", start + 8)[0]
        sizes = self._unpack("BB", start + 13)
        self.is_classic = version < 2 and sizes == (8, 8)
        if version > 1:
            self._require_end(*self._unpack("<QQQ", start + 12))
            return
        at = start + (24 if version == 0 else 28)
        self.base, _, end = self._unpack("<QQQ", at)
        self._require_end(self.base, 0, end)
        self.root = self._unpack("<QQ", at + 32)[1]

    def _require_end(self, base: int, _: int, end: int) -> None:
        if end != UNDEFINED and base + end > len(self.view) and end > len(self.view):
            raise FormatError(f"it should have {end} bytes and has {len(self.view)}")

    # Bytes

    def _unpack(self, form: str, at: int) -> tuple[int, ...]:
        self._budget.step()
        return struct.unpack_from(form, self.view, at)

    def _bytes(self, at: int, size: int) -> bytes:
        if at < 0 or size < 0 or at + size > len(self.view):
            raise FormatError(f"a part of it would be at {at}..{at + size}, after its end")
        return bytes(self.view[at : at + size])

    def _expect(self, signature: bytes, at: int) -> None:
        if self._bytes(at, 4) != signature:
            raise FormatError(f"{signature.decode()} is missing at {at}")

    # Object headers

    def messages(self, address: int) -> list[Message]:
        """Return the messages of an object header, its continuations included."""
        if address not in self._headers:
            self._headers[address] = found = list(self._parsed(address + self.base))
            self._num_messages += len(found)
            if self._num_messages > _MAX_MESSAGES:
                raise FormatError("its objects have more settings than those of any model")
        return self._headers[address]

    def _parsed(self, at: int) -> Iterator[Message]:
        version, _, count, _, size = self._unpack("<BBHII", at)
        if version != 1:
            if self._bytes(at, 4) == b"OHDR":
                raise NotClassicError("a newer object header")
            raise FormatError(f"an object header is missing at {at}")
        blocks = [(at + 16, size)]
        for start, length in blocks:
            end = start + length
            while start + 8 <= end and count > 0:
                kind, size, flags = self._unpack("<HHB", start)
                count -= 1
                content = start + 8
                if kind == _CONTINUATION:
                    offset, more = self._unpack("<QQ", content)
                    blocks.append((offset + self.base, more))
                elif flags & 2 and kind:
                    raise NotClassicError("a shared message")
                elif kind:
                    yield Message(kind, content, size)
                start = content + size

    def _first(self, address: int, kind: int) -> Message | None:
        return next((message for message in self.messages(address) if message.kind == kind), None)

    # Groups

    def is_group(self, address: int) -> bool:
        kinds = {message.kind for message in self.messages(address)}
        return bool(kinds & {_SYMBOL_TABLE, _LINK_INFO, _LINK})

    def members(self, address: int) -> dict[str, int | None]:
        """Return names in a group and the addresses of their objects; None for anything but a hard link."""
        if address not in self._members:
            found = dict(self._listed(address))
            self._members[address] = found
        return self._members[address]

    def _listed(self, address: int) -> Iterator[tuple[str, int | None]]:
        for message in self.messages(address):
            if message.kind == _LINK_INFO and self._has_heap(message):
                raise NotClassicError("a group with dense links")
            if message.kind == _LINK:
                yield self._link(message)
            if message.kind == _SYMBOL_TABLE:
                tree, heap = self._unpack("<QQ", message.start)
                self._expect(b"HEAP", heap + self.base)
                size, _, names = self._unpack("<QQQ", heap + self.base + 8)
                for node, _ in self._leaves(tree, 0, 8):
                    yield from self._symbols(node, names + self.base, size)

    def _has_heap(self, message: Message) -> bool:
        flags = self._unpack("BB", message.start)[1]
        return self._unpack("<Q", message.start + 2 + (8 if flags & 1 else 0))[0] != UNDEFINED

    def _link(self, message: Message) -> tuple[str, int | None]:
        _, flags = self._unpack("BB", message.start)
        at = message.start + 2
        kind = self._unpack("B", at)[0] if flags & 8 else 0
        at += (1 if flags & 8 else 0) + (8 if flags & 4 else 0) + (1 if flags & 16 else 0)
        width = 1 << (flags & 3)
        size = int.from_bytes(self._bytes(at, width), "little")
        name = self._name(self._bytes(at + width, min(size, _MAX_TEXT)))
        return name, self._unpack("<Q", at + width + size)[0] if kind == 0 else None

    def _symbols(self, node: int, names: int, size: int) -> Iterator[tuple[str, int | None]]:
        at = node + self.base
        self._expect(b"SNOD", at)
        count = self._unpack("<H", at + 6)[0]
        for index in range(count):
            offset, header, cached = self._unpack("<QQI", at + 8 + 40 * index)
            if offset >= size:
                raise FormatError("a name lies outside its heap")
            self._budget.hold(_MEMBER_BYTES)
            yield self._name(self._string(names + offset, names + size)), None if cached == 2 else header

    def _string(self, at: int, end: int) -> bytes:
        """Return a zero-terminated string."""
        size = 64
        while True:
            window = self._bytes(at, min(size, end - at, len(self.view) - at))
            stop = window.find(b"\0")
            if stop >= 0:
                return window[:stop]
            if len(window) < size or size > _MAX_NAME:
                raise FormatError("a name does not end")
            size *= 8

    def _name(self, raw: bytes) -> str:
        self._count_text(len(raw))
        return raw.decode("utf-8", "surrogateescape")

    def _leaves(self, tree: int, kind: int, key_size: int, depth: int = 0) -> Iterator[tuple[int, int]]:
        """Return children of the lowest level of a B-tree, and where their keys are."""
        if tree == UNDEFINED:
            return
        at = tree + self.base
        self._expect(b"TREE", at)
        node_kind, level, count = self._unpack("<BBH", at + 4)
        if node_kind != kind or depth > 32:
            raise FormatError("a tree is damaged")
        for index in range(count):
            key = at + 24 + index * (key_size + 8)
            child = self._unpack("<Q", key + key_size)[0]
            if level:
                yield from self._leaves(child, kind, key_size, depth + 1)
            else:
                yield child, key

    # Attributes

    def attribute(self, address: int, name: str) -> list[str] | list[int] | None:
        """Return an attribute of strings or integers as a list; None where there is none of that name."""
        for message in self.messages(address):
            if message.kind == _ATTRIBUTE_INFO and self._has_heap_of_attributes(message):
                raise NotClassicError("dense attributes")
            if message.kind == _ATTRIBUTE:
                found, datatype, shape, data = self._attribute(message)
                if found == name:
                    return self._values(datatype, shape, data, message)
        return None

    def _has_heap_of_attributes(self, message: Message) -> bool:
        flags = self._unpack("BB", message.start)[1]
        return self._unpack("<Q", message.start + 2 + (2 if flags & 1 else 0))[0] != UNDEFINED

    def _attribute(self, message: Message) -> tuple[str, int, tuple[int, ...] | None, int]:
        version, flags, name_size, type_size, space_size = self._unpack("<BBHHH", message.start)
        if version not in (1, 2, 3):
            raise FormatError("an attribute is damaged")
        if version > 1 and flags & 3:
            raise NotClassicError("an attribute of a named type")
        at = message.start + (9 if version == 3 else 8)
        step = 8 if version == 1 else 1
        name = self._bytes(at, name_size).split(b"\0", 1)[0]
        datatype = at + _padded(name_size, step)
        space = datatype + _padded(type_size, step)
        data = space + _padded(space_size, step)
        return self._name(name), datatype, self._shape(space), data

    def _values(
        self, datatype: int, shape: tuple[int, ...] | None, data: int, message: Message
    ) -> list[str] | list[int]:
        head, _, size = self._unpack("<BBxxI", datatype)
        count = 0 if shape is None else math.prod(shape)
        kind = head & 15
        if count > _MAX_COUNT or count * size > message.size:
            raise FormatError("an attribute declares more than it holds")
        if count == 0:
            return []
        if kind == 3:
            self._count_text(count * size)
            raw = self._bytes(data, count * size)
            parts = (raw[at : at + size].split(b"\0", 1)[0] for at in range(0, len(raw), size or 1))
            return [part.decode("utf-8", "surrogateescape") for part in parts]
        if kind == 9 and size == 16 and self._unpack("B", datatype + 1)[0] & 15 == 1:
            return [self._heap_string(data + 16 * index) for index in range(count)]
        if kind == 0 and size in (1, 2, 4, 8):
            raw = self._bytes(data, count * size)
            return [int.from_bytes(raw[at : at + size], "little", signed=True) for at in range(0, len(raw), size)]
        raise FormatError("an attribute holds neither text nor whole numbers")

    def _heap_string(self, at: int) -> str:
        length, collection, index = self._unpack("<IQI", at)
        if length == 0:
            return ""
        start, size = self._heap(collection).get(index, (0, 0))
        if length > size:
            raise FormatError("a text lies outside its heap")
        return self._name(self._bytes(start, length).split(b"\0", 1)[0])

    def _heap(self, collection: int) -> dict[int, tuple[int, int]]:
        if collection not in self._heaps:
            at = collection + self.base
            self._expect(b"GCOL", at)
            end = at + self._unpack("<Q", at + 8)[0]
            found: dict[int, tuple[int, int]] = {}
            at += 16
            while at + 16 <= end:
                index, size = self._unpack("<H6xQ", at)
                if index == 0:
                    break
                found[index] = (at + 16, size)
                at += 16 + _padded(size, 8)
            self._heaps[collection] = found
        return self._heaps[collection]

    def _count_text(self, size: int) -> None:
        self._text += size
        self._budget.hold(size)
        if self._text > _MAX_TEXT:
            raise FormatError("it holds more text than a model's description needs")

    # Datasets

    def dataset(self, address: int) -> DatasetInfo:
        """Return what a dataset declares and where its bytes are.

        Raises:
            LinkError: They are in another file.
        """
        if self._first(address, _EXTERNAL):
            raise LinkError("takes its values from another file (external storage)")
        space, datatype, layout = (self._first(address, kind) for kind in (_DATASPACE, _DATATYPE, _LAYOUT))
        if space is None or datatype is None or layout is None:
            raise FormatError(f"the object at {address} is neither a group nor a dataset")
        shape = self._shape(space.start)
        dtype = self._dtype(datatype.start) if shape is not None else None
        version, kind = self._unpack("BB", layout.start)
        if version == 4 and kind == 3:
            raise LinkError("takes its values from other datasets or files (virtual storage)")
        if version != 3:
            raise NotClassicError(f"a layout of version {version}")
        return self._laid_out(address, layout, kind, shape or (), dtype)

    def _laid_out(
        self, address: int, layout: Message, kind: int, shape: tuple[int, ...], dtype: np.dtype[Any] | None
    ) -> DatasetInfo:
        if kind == 0:
            size = self._unpack("<H", layout.start + 2)[0]
            return DatasetInfo(shape, dtype, size, inline=self._bytes(layout.start + 4, size))
        if kind == 1:
            at, size = self._unpack("<QQ", layout.start + 2)
            if at == UNDEFINED:
                return DatasetInfo(shape, dtype, 0)
            return DatasetInfo(shape, dtype, size, address=at + self.base)
        if kind == 2:
            chunks = self._chunks(address, layout, shape)
            return DatasetInfo(shape, dtype, sum(stored for _, _, stored, _ in chunks.pieces), chunks=chunks)
        raise FormatError("a dataset has an unknown layout")

    def _chunks(self, address: int, layout: Message, shape: tuple[int, ...]) -> Chunks:
        rank = self._unpack("B", layout.start + 2)[0]
        tree = self._unpack("<Q", layout.start + 3)[0]
        if rank != len(shape) + 1:
            raise FormatError("the chunks of a dataset have another rank than the dataset")
        sizes = self._unpack(f"<{rank}I", layout.start + 11)
        pieces = []
        for child, key in self._leaves(tree, 1, 8 + 8 * rank):
            stored, mask = self._unpack("<II", key)
            place = self._unpack(f"<{rank}Q", key + 8)[:-1]
            self._budget.hold(_PIECE_BYTES + 40 * rank)
            pieces.append((place, child + self.base, stored, mask))
        return Chunks(sizes[:-1], self._filters(address), tuple(pieces))

    def _filters(self, address: int) -> tuple[tuple[int, tuple[int, ...]], ...]:
        message = self._first(address, _FILTERS)
        if message is None:
            return ()
        version, count = self._unpack("BB", message.start)
        if version != 1:
            raise NotClassicError("a newer list of filters")
        at = message.start + 8
        filters = []
        for _ in range(count):
            code, name_size, _, num_values = self._unpack("<HHHH", at)
            at += 8 + _padded(name_size, 8)
            filters.append((code, self._unpack(f"<{num_values}I", at)))
            at += 4 * (num_values + num_values % 2)
        return tuple(filters)

    def _shape(self, at: int) -> tuple[int, ...] | None:
        """Return the extent of a dataspace; None for the null dataspace."""
        version, rank, _, kind = self._unpack("BBBB", at)
        if version not in (1, 2) or rank > MAX_RANK:
            raise FormatError("a shape is damaged")
        if version == 2 and kind == 2:
            return None
        shape = self._unpack(f"<{rank}Q", at + (8 if version == 1 else 4))
        return check_shape(shape)

    def _dtype(self, at: int) -> np.dtype[Any] | None:
        """Return the numpy dtype of a datatype message; None for what is no plain number."""
        head, bits, sign, size = self._unpack("<BBBxI", at)
        kind = head & 15
        order = ">" if bits & 1 else "<"
        if kind == 0 and size in (1, 2, 4, 8) and self._unpack("<HH", at + 8) == (0, 8 * size):
            return np.dtype(f"{order}{'i' if bits & 8 else 'u'}{size}")
        if kind == 1 and not bits & 64:
            offset, precision, *parts, bias = self._unpack("<HHBBBBI", at + 8)
            form = (size, *parts, bias)
            if (offset, precision, sign) != (0, 8 * size, 8 * size - 1):
                return None
            if form == _BFLOAT16_FLOAT:
                return BFLOAT16 if order == "<" else None
            return np.dtype(order + _FLOATS[form]) if form in _FLOATS else None
        if kind == 5 and size == 2:
            return BFLOAT16
        # h5py's bool is an enumeration of one byte with two members.
        return np.dtype(bool) if kind == 8 and size == 1 and bits == 2 else None


def _padded(size: int, step: int) -> int:
    return -(-size // step) * step
