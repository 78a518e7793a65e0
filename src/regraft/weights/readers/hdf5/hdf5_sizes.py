"""What datasets declare, held against what the file has, before anything is read or allocated."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from regraft.weights.limits import LimitError, budget
from regraft.weights.readers.hdf5.format.datasets import Chunks, DatasetInfo
from regraft.weights.readers.hdf5.hdf5_filters import FILTERS
from regraft.weights.readers.hdf5.hdf5_image import Hdf5Image

__all__ = ["DatasetSizes"]

# Pieces at the edges may be larger than what is left of the dataset: up to twice along each of four axes.
_MAX_OVERHANG, _FREE = 16, 64 * 2**20


class DatasetSizes:
    """The sizes of one file's datasets, and the bytes that those accepted so far take of it."""

    def __init__(self, image: Hdf5Image) -> None:
        self._image = image
        self._num_bytes = 0

    def accept(self, info: DatasetInfo, dtype: np.dtype[Any], where: str) -> int:
        """Return the bytes that the values of a dataset take in memory.

        Raises:
            WeightsError: It declares more than it holds, lacks pieces, or shares its bytes with others.
        """
        declared = math.prod(info.shape) * dtype.itemsize
        if info.chunks:
            self._require_whole(info.chunks, info.shape, dtype, where)
        self._require_stored(declared, info, where)
        return declared

    def _require_stored(self, declared: int, info: DatasetInfo, where: str) -> None:
        compressed = info.chunks is not None and bool(info.chunks.filters)
        if compressed:
            self._require_unpackable(declared, info.stored, where)
        elif declared > info.stored:
            raise self._image.refused(where, f"declares {declared} bytes and holds {info.stored}")
        pieces = [(info.address, info.stored)] if info.address is not None and declared else []
        if info.chunks:
            pieces = [(address, stored) for _, address, stored, _ in info.chunks.pieces]
        if any(address + stored > self._image.length for address, stored in pieces):
            raise self._image.damaged(f"the values of {where} end after the end of the file")
        self._num_bytes += sum(stored for _, stored in pieces)
        if self._num_bytes > self._image.length:
            raise self._image.refused(where, "shares its bytes with other datasets")

    def _require_whole(self, chunks: Chunks, shape: tuple[int, ...], dtype: np.dtype[Any], where: str) -> None:
        unknown = [code for code, _ in chunks.filters if code not in FILTERS]
        if unknown:
            raise self._image.refused(where, f"needs the HDF5 filter plug-in {unknown[0]}")
        if 0 in chunks.shape or len({place for place, *_ in chunks.pieces}) != len(chunks.pieces):
            raise self._image.damaged(f"the pieces of {where} overlap")
        wanted = math.prod(-(-length // step) for length, step in zip(shape, chunks.shape, strict=True))
        if len(chunks.pieces) != wanted:
            raise self._image.damaged(f"{where} has {len(chunks.pieces)} pieces of {wanted}")
        # A chunk may be larger than the dataset, and is inflated as a whole.
        size = math.prod(chunks.shape) * dtype.itemsize
        smallest = min((stored for _, _, stored, _ in chunks.pieces), default=0)
        self._require_unpackable(size, smallest, f"a piece of {where}")
        declared = math.prod(shape) * dtype.itemsize
        if len(chunks.pieces) * size > _MAX_OVERHANG * declared + _FREE:
            raise self._image.refused(where, f"has pieces of {size} bytes each, and declares {declared} in all")

    def _require_unpackable(self, declared: int, stored: int, where: str) -> None:
        try:
            budget().unpack(declared, stored, where)
        except LimitError as error:
            raise self._image.refused(
                where, f"declares {declared} bytes and holds {stored} (a decompression bomb)"
            ) from error
