"""The tensors of a TensorFlow Lite model: where their bytes are, and which numbers their integers stand for.

A quantised value is (q - zero point) * scale, with one scale for the tensor or one for each place of an axis.
Source: schema.fbs of TensorFlow Lite (`Tensor`, `QuantizationParameters`, `Buffer`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regraft.weights.limits import budget, check_shape
from regraft.weights.readers.byte_range import ByteRange, SourceFile
from regraft.weights.readers.tflite.flatbuffer import FlatBufferError, Table

__all__ = ["TfliteTensor", "read_tensor"]

_DTYPES = {
    0: "float32", 1: "float16", 2: "int32", 3: "uint8", 4: "int64", 6: "bool", 7: "int16", 9: "int8", 10: "float64",
    17: "int4",
}  # fmt: skip
_INTEGERS = ("int8", "uint8", "int16", "int32", "int64", "int4")
_TENSOR_BYTES = 1200


@dataclass(frozen=True)
class TfliteTensor:
    """One tensor; `span` is None for one that is computed, `scale` empty for one that is not quantised."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    span: ByteRange | None
    scale: NDArray[np.float32]
    zero_point: NDArray[np.int64]
    axis: int = 0
    is_sparse: bool = False

    @property
    def is_quantised(self) -> bool:
        """Whether its integers stand for real numbers."""
        return self.dtype in _INTEGERS and self.scale.size > 0

    def load(self) -> NDArray[Any]:
        """Return the values; those of a quantised tensor as the real numbers that they stand for."""
        if self.span is None:
            raise FlatBufferError(f"{self.name!r} has no values")
        stored = self.span.read()
        if self.dtype == "int4":
            values: NDArray[Any] = _nibbles(stored, math.prod(self.shape)).reshape(self.shape)
        else:
            values = stored.view(np.dtype(self.dtype).newbyteorder("<")).reshape(self.shape)
        if not self.is_quantised:
            native: NDArray[Any] = values.astype(values.dtype.newbyteorder("="), copy=False)
            return native
        wide = values.astype(np.float64) - self._along(self.zero_point)
        real: NDArray[np.float32] = (wide * self._along(self.scale)).astype(np.float32)
        return real

    def _along(self, numbers: NDArray[Any]) -> NDArray[Any]:
        """Return numbers of each place of the axis so that they spread over the others."""
        if numbers.size <= 1:
            return np.asarray(numbers.reshape(()) if numbers.size else 0, np.float64)
        shape = [1] * len(self.shape)
        shape[self.axis] = numbers.size
        return numbers.astype(np.float64).reshape(shape)


def read_tensor(table: Table, buffers: list[tuple[int, int]], source: SourceFile) -> TfliteTensor:
    """Return one tensor.

    Args:
        table: Its table.
        buffers: Where the bytes of each buffer begin, and how many they are.
        source: The file.

    Raises:
        FlatBufferError: It declares something else than its buffer holds.
    """
    budget().hold(_TENSOR_BYTES)
    shape = check_shape([int(length) for length in table.numbers(0, "i")]) if _is_fixed(table) else ()
    kind, name, buffer = table.integer(1, "b"), table.text(3), table.integer(2, "I")
    if buffer >= len(buffers):
        raise FlatBufferError(f"{name!r} refers to buffer {buffer}, there are {len(buffers)}")
    start, size = buffers[buffer]
    dtype, is_sparse = _DTYPES.get(kind, f"type {kind}"), table.table(6) is not None
    scale, zero_point, axis = _quantisation(table, name, shape)
    span = ByteRange(source, start, size) if size and dtype in _DTYPES.values() and not is_sparse else None
    if span is not None and size != _size(dtype, shape):
        raise FlatBufferError(f"{name!r} has {size} bytes, its shape {shape} of {dtype} needs {_size(dtype, shape)}")
    return TfliteTensor(name, shape, dtype, span, scale, zero_point, axis, is_sparse)


def _is_fixed(table: Table) -> bool:
    """Return whether all lengths are known; a batch of any size is -1 in some files."""
    return bool((table.numbers(0, "i").astype(np.int64) >= 0).all())


def _quantisation(
    table: Table, name: str, shape: tuple[int, ...]
) -> tuple[NDArray[np.float32], NDArray[np.int64], int]:
    given = table.table(4)
    if given is None:
        return np.empty(0, np.float32), np.empty(0, np.int64), 0
    scale, zero_point = given.numbers(2, "f").astype(np.float32), given.numbers(3, "q").astype(np.int64)
    axis = given.integer(6)
    is_each = scale.size > 1
    if is_each and not (0 <= axis < len(shape) and shape[axis] == scale.size):
        raise FlatBufferError(f"{name!r} of shape {shape} has {scale.size} scales along axis {axis}")
    if zero_point.size not in (0, 1, scale.size):
        raise FlatBufferError(f"{name!r} has {scale.size} scales and {zero_point.size} zero points")
    if not np.isfinite(scale).all():
        raise FlatBufferError(f"{name!r} has a scale that is not finite")
    return scale, zero_point, axis


def _size(dtype: str, shape: tuple[int, ...]) -> int:
    count = math.prod(shape)
    return (count + 1) // 2 if dtype == "int4" else count * np.dtype(dtype).itemsize


def _nibbles(stored: NDArray[np.uint8], count: int) -> NDArray[np.int8]:
    """Return signed numbers of four bits, the lower half of a byte first."""
    pairs = np.stack([stored & 0xF, stored >> 4], 1).reshape(-1)[:count].astype(np.int8)
    return np.where(pairs > 7, pairs - 16, pairs).astype(np.int8)
