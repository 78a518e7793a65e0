"""Shapes and number types, as datasets and attributes declare them."""

from __future__ import annotations

from typing import Any

import numpy as np

from regraft.weights.limits import MAX_RANK, check_shape
from regraft.weights.readers.hdf5.format.file_bytes import FileBytes, FormatError

__all__ = ["BFLOAT16", "dtype_at", "shape_at"]

# How h5py knows bfloat16: two opaque bytes.
BFLOAT16 = np.dtype("V2")
_FLOATS = {
    (2, 10, 5, 0, 10, 15): "f2",
    (4, 23, 8, 0, 23, 127): "f4",
    (8, 52, 11, 0, 52, 1023): "f8",
}
_BFLOAT16_FLOAT = (2, 7, 8, 0, 7, 127)


def shape_at(file: FileBytes, at: int) -> tuple[int, ...] | None:
    """Return the extent of a dataspace; None for the null dataspace."""
    version, rank, _, kind = file.unpack("BBBB", at)
    if version not in (1, 2) or rank > MAX_RANK:
        raise FormatError("a shape is damaged")
    if version == 2 and kind == 2:
        return None
    shape = file.unpack(f"<{rank}Q", at + (8 if version == 1 else 4))
    return check_shape(shape)


def dtype_at(file: FileBytes, at: int) -> np.dtype[Any] | None:
    """Return the numpy dtype of a datatype message; None for what is no plain number."""
    head, bits, sign, size = file.unpack("<BBBxI", at)
    kind = head & 15
    order = ">" if bits & 1 else "<"
    if kind == 0 and size in (1, 2, 4, 8) and file.unpack("<HH", at + 8) == (0, 8 * size):
        return np.dtype(f"{order}{'i' if bits & 8 else 'u'}{size}")
    if kind == 1 and not bits & 64:
        offset, precision, *parts, bias = file.unpack("<HHBBBBI", at + 8)
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
