"""The filters that pieces of datasets went through when they were written, by their numbers in the file."""

from __future__ import annotations

import math
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regraft.weights.readers.hdf5.format.datasets import Chunks

__all__ = ["FILTERS", "LZF", "unfiltered"]

_GZIP, _SHUFFLE, _FLETCHER32 = 1, 2, 3
FILTERS = (_GZIP, _SHUFFLE, _FLETCHER32)
LZF = 32000  # h5py's own; its files are written again


def unfiltered(raw: bytes, chunks: Chunks, mask: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return the numbers of one piece.

    Raises:
        ValueError: They are more or fewer than a piece has.
    """
    size = math.prod(chunks.shape) * dtype.itemsize
    for index, (code, _) in reversed(list(enumerate(chunks.filters))):
        if mask >> index & 1:
            continue
        if code == _FLETCHER32:
            raw = raw[:-4]
        elif code == _GZIP:
            raw = zlib.decompressobj().decompress(raw, size + 4)
        else:
            raw = np.frombuffer(raw, np.uint8).reshape(dtype.itemsize, -1).T.tobytes()
    if len(raw) != size:
        raise ValueError(f"a piece of a dataset has {len(raw)} bytes, not {size}")
    return np.frombuffer(raw, dtype)
