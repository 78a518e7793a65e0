"""Attributes: the strings and integers that describe an object, some of them kept in heaps of the whole file."""

from __future__ import annotations

import math

from regraft.weights.readers.hdf5.format.datatypes import shape_at
from regraft.weights.readers.hdf5.format.file_bytes import (
    UNDEFINED,
    FileBytes,
    FormatError,
    NotClassicError,
    padded,
)
from regraft.weights.readers.hdf5.format.headers import Message, ObjectHeaders

__all__ = ["Attributes"]

_ATTRIBUTE, _ATTRIBUTE_INFO = 0x0C, 0x15
_MAX_COUNT = 1_000_000


class Attributes:
    """The attributes of one file's objects."""

    def __init__(self, file: FileBytes, headers: ObjectHeaders) -> None:
        self._file, self._headers = file, headers
        self._heaps = _Heaps(file)

    def values(self, address: int, name: str) -> list[str] | list[int] | None:
        """Return an attribute of strings or integers as a list; None where there is none of that name."""
        for message in self._headers.messages(address):
            if message.kind == _ATTRIBUTE_INFO and self._is_dense(message):
                raise NotClassicError("dense attributes")
            if message.kind == _ATTRIBUTE:
                found, datatype, shape, data = self._parsed(message)
                if found == name:
                    return self._values(datatype, shape, data, message)
        return None

    def _is_dense(self, message: Message) -> bool:
        flags = self._file.unpack("BB", message.start)[1]
        return self._file.unpack("<Q", message.start + 2 + (2 if flags & 1 else 0))[0] != UNDEFINED

    def _parsed(self, message: Message) -> tuple[str, int, tuple[int, ...] | None, int]:
        """Return the name of an attribute, where its datatype is, its shape, and where its values are."""
        file = self._file
        version, flags, name_size, type_size, space_size = file.unpack("<BBHHH", message.start)
        if version not in (1, 2, 3):
            raise FormatError("an attribute is damaged")
        if version > 1 and flags & 3:
            raise NotClassicError("an attribute of a named type")
        at = message.start + (9 if version == 3 else 8)
        step = 8 if version == 1 else 1
        name = file.take(at, name_size).split(b"\0", 1)[0]
        datatype = at + padded(name_size, step)
        space = datatype + padded(type_size, step)
        data = space + padded(space_size, step)
        return file.name(name), datatype, shape_at(file, space), data

    def _values(
        self, datatype: int, shape: tuple[int, ...] | None, data: int, message: Message
    ) -> list[str] | list[int]:
        file = self._file
        head, _, size = file.unpack("<BBxxI", datatype)
        count = 0 if shape is None else math.prod(shape)
        kind = head & 15
        if count > _MAX_COUNT or count * size > message.size:
            raise FormatError("an attribute declares more than it holds")
        if count == 0:
            return []
        if kind == 3:
            file.count_text(count * size)
            raw = file.take(data, count * size)
            parts = (raw[at : at + size].split(b"\0", 1)[0] for at in range(0, len(raw), size or 1))
            return [part.decode("utf-8", "surrogateescape") for part in parts]
        if kind == 9 and size == 16 and file.unpack("B", datatype + 1)[0] & 15 == 1:
            return [self._heaps.string(data + 16 * index) for index in range(count)]
        if kind == 0 and size in (1, 2, 4, 8):
            raw = file.take(data, count * size)
            return [int.from_bytes(raw[at : at + size], "little", signed=True) for at in range(0, len(raw), size)]
        raise FormatError("an attribute holds neither text nor whole numbers")


class _Heaps:
    """The global heaps of one file, where strings of any length are."""

    def __init__(self, file: FileBytes) -> None:
        self._file = file
        self._heaps: dict[int, dict[int, tuple[int, int]]] = {}

    def string(self, at: int) -> str:
        """Return the string that a reference at this place means."""
        length, collection, index = self._file.unpack("<IQI", at)
        if length == 0:
            return ""
        start, size = self._heap(collection).get(index, (0, 0))
        if length > size:
            raise FormatError("a text lies outside its heap")
        return self._file.name(self._file.take(start, length).split(b"\0", 1)[0])

    def _heap(self, collection: int) -> dict[int, tuple[int, int]]:
        if collection not in self._heaps:
            file = self._file
            at = collection + file.base
            file.expect(b"GCOL", at)
            end = at + file.unpack("<Q", at + 8)[0]
            found: dict[int, tuple[int, int]] = {}
            at += 16
            while at + 16 <= end:
                index, size = file.unpack("<H6xQ", at)
                if index == 0:
                    break
                found[index] = (at + 16, size)
                at += 16 + padded(size, 8)
            self._heaps[collection] = found
        return self._heaps[collection]
