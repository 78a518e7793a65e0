"""The values of a dataset, read by byte range when they are asked for."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regraft.weights.readers.byte_range import ByteRange
from regraft.weights.readers.hdf5.format.datasets import Chunks, DatasetInfo
from regraft.weights.readers.hdf5.format.datatypes import BFLOAT16
from regraft.weights.readers.hdf5.hdf5_filters import unfiltered
from regraft.weights.readers.hdf5.hdf5_image import Hdf5Image

__all__ = ["StoredArray", "stored_array"]


@dataclass(frozen=True)
class StoredArray:
    """A numeric dataset: what it declares, and how to get its values."""

    shape: tuple[int, ...]
    dtype: str
    load: Callable[[], NDArray[Any]]


def stored_array(image: Hdf5Image, info: DatasetInfo, dtype: np.dtype[Any], num_bytes: int) -> StoredArray:
    """Return a dataset whose sizes were checked."""
    name = "bfloat16" if dtype == BFLOAT16 else dtype.name
    return StoredArray(info.shape, name, _loader(image, info, dtype, num_bytes))


def _loader(image: Hdf5Image, info: DatasetInfo, dtype: np.dtype[Any], num_bytes: int) -> Callable[[], NDArray[Any]]:
    if info.chunks:
        return partial(_load_chunks, image, info.chunks, info.shape, dtype)
    if info.inline is not None or num_bytes == 0:
        return partial(_values, (info.inline or b"")[:num_bytes], dtype, info.shape)
    return partial(_load_range, image, info.address or 0, num_bytes, dtype, info.shape)


def _load_range(
    image: Hdf5Image, address: int, num_bytes: int, dtype: np.dtype[Any], shape: tuple[int, ...]
) -> NDArray[Any]:
    return _widened(ByteRange(image.source, image.start + address, num_bytes).array(dtype, shape))


def _values(raw: bytes, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    values = np.frombuffer(raw, dtype).reshape(shape)
    return _widened(values.astype(dtype.newbyteorder("=")))


def _load_chunks(image: Hdf5Image, chunks: Chunks, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    values = np.empty(shape, dtype)
    for place, address, stored, mask in chunks.pieces:
        raw = image.source.read(image.start + address, stored).tobytes()
        try:
            piece = unfiltered(raw, chunks, mask, dtype).reshape(chunks.shape)
            ends = tuple(min(at + step, end) for at, step, end in zip(place, chunks.shape, shape, strict=True))
            inner = tuple(slice(0, end - at) for at, end in zip(place, ends, strict=True))
            values[tuple(slice(at, end) for at, end in zip(place, ends, strict=True))] = piece[inner]
        except (zlib.error, ValueError) as error:
            raise image.damaged(error) from error
    return _widened(values.astype(dtype.newbyteorder("="), copy=False))


def _widened(values: NDArray[Any]) -> NDArray[Any]:
    """Return bfloat16 (HDF5 knows it as two opaque bytes) as float32; everything else as it is."""
    if values.dtype.kind != "V":
        return values
    wide = np.ascontiguousarray(values).view("<u2").astype(np.uint32)
    return (wide << np.uint32(16)).view(np.float32).reshape(values.shape)
