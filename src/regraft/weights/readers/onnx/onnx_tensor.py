"""One ONNX tensor: its shape and dtype, and how to get at its values, inside the file or beside it.

External data is read from the file's own folder only: relative paths, regular files, no links of any kind.
Schema: `TensorProto` of onnx.proto, and ONNX's page on external data.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regraft.errors import WeightsError
from regraft.weights.readers.byte_range import ByteRange, SourceFile, companion
from regraft.weights.readers.protobuf import BYTES, Message, ProtobufError, loaded, numbers

__all__ = ["OnnxTensor", "TensorReader"]

# TensorProto.DataType -> (name, dtype on disk, field with the values when they are not raw, whether varints)
_DTYPES: dict[int, tuple[str, str, int, bool]] = {
    1: ("float32", "<f4", 4, False),
    2: ("uint8", "u1", 5, True),
    3: ("int8", "i1", 5, True),
    4: ("uint16", "<u2", 5, True),
    5: ("int16", "<i2", 5, True),
    6: ("int32", "<i4", 5, True),
    7: ("int64", "<i8", 7, True),
    9: ("bool", "?", 5, True),
    10: ("float16", "<f2", 5, True),
    11: ("float64", "<f8", 10, False),
    12: ("uint32", "<u4", 11, True),
    13: ("uint64", "<u8", 11, True),
    16: ("bfloat16", "<u2", 5, True),
}
_OTHER_NAMES = {
    8: "string", 14: "complex64", 15: "complex128", 17: "float8e4m3fn", 18: "float8e4m3fnuz", 19: "float8e5m2",
    20: "float8e5m2fnuz", 21: "uint4", 22: "int4", 23: "float4e2m1", 24: "float8e8m0",
}  # fmt: skip
_HALF = (10, 16)
_RAW, _EXTERNAL, _LOCATION = 9, 13, 14


@dataclass(frozen=True)
class OnnxTensor:
    """A tensor of the file; `load` is None when its type is none that regraft reads (`dtype` says which)."""

    name: str
    shape: tuple[int, ...]
    dtype: str
    load: Callable[[], NDArray[Any]] | None


@dataclass
class TensorReader:
    """Reads the tensors of one ONNX file.

    Args:
        source: The file.
    """

    source: SourceFile
    _beside: dict[str, SourceFile] = field(default_factory=dict)
    _num_bytes: int = 0

    def read(self, message: Message, name: str = "") -> OnnxTensor:
        """Return one TensorProto.

        Raises:
            ProtobufError: It is damaged.
            WeightsError: Its external data is missing, too short, or somewhere that is not allowed.
        """
        name = name or message.text(8)
        shape, kind = _shape(message), message.integer(2)
        if kind not in _DTYPES:
            return OnnxTensor(name, shape, _OTHER_NAMES.get(kind, f"type {kind}"), None)
        word, stored, number, _ = _DTYPES[kind]
        size = math.prod(shape) * np.dtype(stored).itemsize
        if message.integer(_LOCATION) == 1 or _EXTERNAL in message:
            span = self._external(message, name, size)
        elif _RAW in message:
            span = self._raw(message, name, size)
        else:
            return OnnxTensor(name, shape, word, self._typed(message, name, kind, shape, number))
        return OnnxTensor(name, shape, word, lambda: _finish(span.array(np.dtype(stored), shape), kind))

    def _raw(self, message: Message, name: str, size: int) -> ByteRange:
        offset, num_bytes = message.places(_RAW)[-1]
        if num_bytes != size:
            raise ProtobufError(f"{name!r} has {num_bytes} bytes, but its shape needs {size}")
        return ByteRange(self.source, offset, size)

    def _external(self, message: Message, name: str, size: int) -> ByteRange:
        entries = {entry.text(1): entry.text(2) for entry in message.messages(_EXTERNAL)}
        source = self._file(entries.get("location", ""))
        offset, length = (
            _count(entries.get(word, default), name) for word, default in (("offset", "0"), ("length", ""))
        )
        if length not in (None, size):
            raise ProtobufError(f"{name!r} has {length} bytes of external data, but its shape needs {size}")
        offset = offset or 0
        if offset + size > source.size:
            raise WeightsError(
                f"{str(source.path)!r} has {source.size} bytes, but {name!r} should be at {offset}..{offset + size}.",
                "the file with the external data is truncated, or belongs to another model",
                "download or copy both files again",
            )
        self._num_bytes += size
        if self._num_bytes > 4 * sum(opened.size for opened in self._beside.values()):
            raise ProtobufError("its tensors reuse the same external data")
        return ByteRange(source, offset, size)

    def _file(self, location: str) -> SourceFile:
        if location not in self._beside:
            path = self.source.path
            self._beside[location] = companion(path.parent, location, named_by=f"The ONNX file {str(path)!r}")
        return self._beside[location]

    def _typed(
        self, message: Message, name: str, kind: int, shape: tuple[int, ...], number: int
    ) -> Callable[[], NDArray[Any]]:
        dtype, is_varint = np.dtype(_DTYPES[kind][1]), _DTYPES[kind][3]
        count, num_bytes = math.prod(shape), message.num_bytes(number)
        if message.kinds(number) != [BYTES]:
            fits = message.num_values(number, None if is_varint else dtype) == count
        else:
            fits = count <= num_bytes <= 10 * count if is_varint else num_bytes == count * dtype.itemsize
        if not fits:
            raise ProtobufError(f"{name!r} has {num_bytes} bytes of values for the shape {shape}")
        narrow = np.dtype(np.uint16) if kind in _HALF else dtype
        values = numbers(message, number, None if is_varint else dtype, self.source.read, narrow)

        def load() -> NDArray[Any]:
            got = loaded(values, count, f"tensor {name!r} of {str(self.source.path)!r}")
            if is_varint:
                got = got.astype(np.uint16, copy=False).view(dtype) if kind in _HALF else got.astype(dtype, copy=False)
            return _finish(got.reshape(shape), kind)

        return load


def _shape(message: Message) -> tuple[int, ...]:
    dims = tuple(message.integers(1))
    if len(dims) > 16 or any(dim < 0 for dim in dims) or math.prod(dim or 1 for dim in dims) > 1 << 40:
        raise ProtobufError(f"a shape of {len(dims)} axes: {dims[:8]}")
    return dims


def _count(text: str, name: str) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise ProtobufError(f"{name!r} has an invalid external data offset or length: {text[:20]!r}")
    return int(text)


def _finish(values: NDArray[Any], kind: int) -> NDArray[Any]:
    """Convert to native byte order; bfloat16 widened to float32."""
    if kind == 16:
        return (values.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return values.astype(values.dtype.newbyteorder("="), copy=False)
