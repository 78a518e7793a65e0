"""Datasets: what they declare, and where their bytes are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from regraft.weights.readers.hdf5.format.b_tree import CHUNK_TREE, leaves
from regraft.weights.readers.hdf5.format.datatypes import dtype_at, shape_at
from regraft.weights.readers.hdf5.format.file_bytes import (
    UNDEFINED,
    FileBytes,
    FormatError,
    LinkError,
    NotClassicError,
    padded,
)
from regraft.weights.readers.hdf5.format.headers import Message, ObjectHeaders

__all__ = ["Chunks", "DatasetInfo", "Datasets"]

_DATASPACE, _DATATYPE, _EXTERNAL, _LAYOUT, _FILTERS = 0x01, 0x03, 0x07, 0x08, 0x0B
_PIECE_BYTES = 250  # that a piece of a dataset takes in memory, without its place


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


class Datasets:
    """The datasets of one file by the address of their header."""

    def __init__(self, file: FileBytes, headers: ObjectHeaders) -> None:
        self._file, self._headers = file, headers

    def info(self, address: int) -> DatasetInfo:
        """Return the shape, type and location of a dataset.

        Raises:
            LinkError: They are in another file.
        """
        first = self._headers.first
        if first(address, _EXTERNAL):
            raise LinkError("takes its values from another file (external storage)")
        space, datatype, layout = (first(address, kind) for kind in (_DATASPACE, _DATATYPE, _LAYOUT))
        if space is None or datatype is None or layout is None:
            raise FormatError(f"the object at {address} is neither a group nor a dataset")
        shape = shape_at(self._file, space.start)
        dtype = dtype_at(self._file, datatype.start) if shape is not None else None
        version, kind = self._file.unpack("BB", layout.start)
        if version == 4 and kind == 3:
            raise LinkError("takes its values from other datasets or files (virtual storage)")
        if version != 3:
            raise NotClassicError(f"a layout of version {version}")
        return self._laid_out(address, layout, kind, shape or (), dtype)

    def _laid_out(
        self, address: int, layout: Message, kind: int, shape: tuple[int, ...], dtype: np.dtype[Any] | None
    ) -> DatasetInfo:
        file = self._file
        if kind == 0:
            size = file.unpack("<H", layout.start + 2)[0]
            return DatasetInfo(shape, dtype, size, inline=file.take(layout.start + 4, size))
        if kind == 1:
            at, size = file.unpack("<QQ", layout.start + 2)
            if at == UNDEFINED:
                return DatasetInfo(shape, dtype, 0)
            return DatasetInfo(shape, dtype, size, address=at + file.base)
        if kind == 2:
            chunks = self._chunks(address, layout, shape)
            return DatasetInfo(shape, dtype, sum(stored for _, _, stored, _ in chunks.pieces), chunks=chunks)
        raise FormatError("a dataset has an unknown layout")

    def _chunks(self, address: int, layout: Message, shape: tuple[int, ...]) -> Chunks:
        file = self._file
        rank = file.unpack("B", layout.start + 2)[0]
        tree = file.unpack("<Q", layout.start + 3)[0]
        if rank != len(shape) + 1:
            raise FormatError("the chunks of a dataset have another rank than the dataset")
        sizes = file.unpack(f"<{rank}I", layout.start + 11)
        pieces = []
        for child, key in leaves(file, tree, CHUNK_TREE, 8 + 8 * rank):
            stored, mask = file.unpack("<II", key)
            place = file.unpack(f"<{rank}Q", key + 8)[:-1]
            file.budget.hold(_PIECE_BYTES + 40 * rank)
            pieces.append((place, child + file.base, stored, mask))
        return Chunks(sizes[:-1], self._filters(address), tuple(pieces))

    def _filters(self, address: int) -> tuple[tuple[int, tuple[int, ...]], ...]:
        file = self._file
        message = self._headers.first(address, _FILTERS)
        if message is None:
            return ()
        version, count = file.unpack("BB", message.start)
        if version != 1:
            raise NotClassicError("a newer list of filters")
        at = message.start + 8
        filters = []
        for _ in range(count):
            code, name_size, _, num_values = file.unpack("<HHHH", at)
            at += 8 + padded(name_size, 8)
            filters.append((code, file.unpack(f"<{num_values}I", at)))
            at += 4 * (num_values + num_values % 2)
        return tuple(filters)
