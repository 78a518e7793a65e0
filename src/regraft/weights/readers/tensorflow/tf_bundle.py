"""The variables of a TensorFlow checkpoint, V1 (one table with the values) and V2 (a table beside data shards).

Schemas: `tensor_bundle.proto`, `saved_tensor_slice.proto`, `tensor.proto`, `tensor_shape.proto` of TensorFlow.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from regraft.errors import WeightsError
from regraft.machine.crc32c import crc32c, masked
from regraft.weights.readers.byte_range import ByteRange, SourceFile, as_array, companion
from regraft.weights.readers.protobuf import Message, ProtobufError, loaded, numbers
from regraft.weights.readers.tensorflow import sstable

__all__ = ["Variable", "read_v1", "read_v2"]

Values = Callable[[], NDArray[Any]]
Shape = tuple[int, ...]

# DataType of types.proto -> (name, dtype on disk, field of TensorProto with the values, whether these are varints)
_DTYPES: dict[int, tuple[str, str, int, bool]] = {
    1: ("float32", "<f4", 5, False),
    2: ("float64", "<f8", 6, False),
    3: ("int32", "<i4", 7, True),
    4: ("uint8", "u1", 7, True),
    5: ("int16", "<i2", 7, True),
    6: ("int8", "i1", 7, True),
    9: ("int64", "<i8", 10, True),
    10: ("bool", "?", 11, True),
    14: ("bfloat16", "<u2", 13, True),
    17: ("uint16", "<u2", 7, True),
    19: ("float16", "<f2", 13, True),
    22: ("uint32", "<u4", 16, True),
    23: ("uint64", "<u8", 17, True),
}
_STRING = 7
_MAX_STRING = 1 << 28


@dataclass(frozen=True)
class Variable:
    """One entry of a checkpoint; `dtype` is None when it holds no numbers (strings, resources)."""

    name: str
    shape: Shape
    dtype: str | None
    load: Values
    num_parts: int = 1


@dataclass(frozen=True)
class _Part:
    """A box of a partitioned variable: where it starts in the whole, and its values."""

    starts: Shape
    shape: Shape
    load: Values


def read_v2(entries: Iterable[sstable.Entry], index: Path, prefix: str) -> tuple[list[Variable], memoryview | None]:
    """Return variables of a V2 index, and the serialised object graph where it has one.

    Args:
        entries: The entries of the index table, the header first.
        index: The path of the index file; the shards lie beside it.
        prefix: What the names of the shards start with.

    Raises:
        ProtobufError: The index is damaged.
        WeightsError: A shard is missing, too short, or no regular file of its own.
    """
    stored = {entry.key: entry.value for entry in entries}
    header = Message(stored.pop(b"", memoryview(b"")))
    shards = _Shards(index, prefix, header.integer(1), ">" if header.integer(2) else "<")
    graph: memoryview | None = None
    variables: list[Variable] = []
    for key, value in stored.items():
        if key.startswith(b"\0"):  # a slice of a partitioned variable: read through the entry of the whole
            continue
        entry, name = Message(value), _name(key)
        if name == "_CHECKPOINTABLE_OBJECT_GRAPH":
            graph = _string(shards.source(entry.integer(3)), entry)
        else:
            variables.append(_v2_variable(name, entry, stored, shards))
    return variables, graph


class _Shards:
    """The data files of a V2 checkpoint, each opened when it is first needed."""

    def __init__(self, index: Path, prefix: str, num_shards: int, byte_order: Literal["<", ">"]) -> None:
        self.index, self.prefix, self.num_shards = index, prefix, num_shards
        self.byte_order = byte_order
        self._opened: dict[int, SourceFile] = {}
        self._num_bytes = 0

    def source(self, shard: int) -> SourceFile:
        if not 0 <= shard < self.num_shards:
            raise ProtobufError(f"data file {shard} of {self.num_shards}")
        if shard not in self._opened:
            name = f"{self.prefix}.data-{shard:05d}-of-{self.num_shards:05d}"
            self._opened[shard] = companion(self.index.parent, name, named_by=f"The checkpoint {str(self.index)!r}")
        return self._opened[shard]

    def span(self, shard: int, offset: int, size: int) -> ByteRange:
        """Return a byte range; all of them together are no more than the files hold."""
        source = self.source(shard)
        if offset + size > source.size:
            raise WeightsError(
                f"{str(source.path)!r} has {source.size} bytes; a variable should be at {offset}..{offset + size}.",
                "the data file of the checkpoint is truncated, or belongs to another index",
                "download or copy it again",
            )
        self._num_bytes += size
        if self._num_bytes > sum(opened.size for opened in self._opened.values()):
            raise ProtobufError("its variables overlap")
        return ByteRange(source, offset, size)


def _v2_variable(name: str, entry: Message, stored: dict[bytes, memoryview], shards: _Shards) -> Variable:
    shape, kind = _shape(entry.message(2)), entry.integer(1)
    if kind not in _DTYPES:
        return Variable(name, shape, None, _no_numbers(name))
    slices = list(entry.messages(7))
    if not slices:
        return Variable(name, shape, _DTYPES[kind][0], _v2_values(name, entry, kind, shape, shards))
    parts = []
    for piece in slices:
        starts, box, key_box = _slice(piece, shape)
        key = _slice_key(name, key_box)
        if key not in stored:
            raise ProtobufError(f"a part of {name!r} is missing")
        inner = Message(stored[key])
        parts.append(_Part(starts, box, _v2_values(name, inner, kind, box, shards)))
    return _whole(name, shape, kind, parts)


def _v2_values(name: str, entry: Message, kind: int, shape: Shape, shards: _Shards) -> Values:
    dtype = np.dtype(_DTYPES[kind][1]).newbyteorder(shards.byte_order)
    offset, size = entry.integer(4), entry.integer(5)
    if size != math.prod(shape) * dtype.itemsize or offset < 0:
        raise ProtobufError(f"{name!r} has {size} bytes for the shape {shape}")
    span = shards.span(entry.integer(3), offset, size)
    checksum = entry.fixed(6, np.dtype("<u4"))

    def load() -> NDArray[Any]:
        stored = span.read()
        if checksum.size and masked(crc32c(stored)) != checksum[-1]:
            raise WeightsError(
                f"The values of {name!r} in {str(span.source.path)!r} are damaged: the checksum is wrong.",
                "the values that TensorFlow wrote",
                "download or copy the checkpoint again",
            )
        return _widen(as_array(stored, dtype, shape), kind)

    return load


def read_v1(entries: Iterable[sstable.Entry], source: SourceFile) -> list[Variable]:
    """Return variables of a V1 checkpoint: shapes in its first entry, values in the others.

    Raises:
        ProtobufError: It is damaged, or no checkpoint.
    """
    shapes: dict[str, tuple[Shape, int]] | None = None
    parts: dict[str, list[_Part]] = {}
    for entry in entries:
        saved = Message(entry.value, entry.offset or 0)
        if shapes is None:
            shapes = _v1_shapes(saved)
            continue
        piece = saved.message(2)
        if piece is None or piece.text(1) not in shapes:
            raise ProtobufError("values without a variable")
        name = piece.text(1)
        shape, kind = shapes[name]
        if kind in _DTYPES:
            starts, box, _ = _slice(piece.message(2), shape)
            tensor = piece.message(3)
            if tensor is None:
                raise ProtobufError(f"no values of {name!r}")
            fetch = source.read if entry.offset is not None else _from_memory(entry.value)
            parts.setdefault(name, []).append(_Part(starts, box, _v1_values(name, tensor, kind, box, fetch)))
    if shapes is None:
        raise ProtobufError("an empty table")
    return [_v1_variable(name, shape, kind, parts.get(name, [])) for name, (shape, kind) in shapes.items()]


def _v1_variable(name: str, shape: Shape, kind: int, parts: list[_Part]) -> Variable:
    if kind not in _DTYPES:
        return Variable(name, shape, None, _no_numbers(name))
    if len(parts) == 1 and parts[0].shape == shape:
        return Variable(name, shape, _DTYPES[kind][0], parts[0].load)
    return _whole(name, shape, kind, parts)


def _v1_shapes(saved: Message) -> dict[str, tuple[Shape, int]]:
    meta = saved.message(1)
    if meta is None:
        raise ProtobufError("no list of variables")
    return {tensor.text(1): (_shape(tensor.message(2)), tensor.integer(3)) for tensor in meta.messages(1)}


def _v1_values(name: str, tensor: Message, kind: int, shape: Shape, fetch: Callable[[int, int], Any]) -> Values:
    _, stored, number, is_varint = _DTYPES[kind]
    dtype, count = np.dtype(stored), math.prod(shape)
    content = 4 in tensor and tensor.places(4)[-1][1] > 0
    num_bytes = sum(size for _, size in tensor.places(4 if content else number)) if content or number in tensor else 0
    width = 1 if is_varint and not content else dtype.itemsize
    if num_bytes < count * width or num_bytes > count * (10 if width != dtype.itemsize or is_varint else width):
        raise ProtobufError(f"{name!r} has {num_bytes} bytes of values for the shape {shape}")
    narrow = np.dtype(np.uint16) if number == 13 else dtype
    values = numbers(tensor, 4 if content else number, None if is_varint and not content else dtype, fetch, narrow)

    def load() -> NDArray[Any]:
        got = loaded(values, count, f"variable {name!r}")
        if is_varint and not content:
            got = got.astype(np.uint16, copy=False).view(dtype) if number == 13 else got.astype(dtype, copy=False)
        return _widen(got.reshape(shape), kind)

    return load


def _from_memory(value: memoryview) -> Callable[[int, int], Any]:
    return lambda offset, size: value[offset : offset + size]


def _whole(name: str, shape: Shape, kind: int, parts: list[_Part]) -> Variable:
    if sum(math.prod(part.shape) for part in parts) != math.prod(shape):
        raise ProtobufError(f"the {len(parts)} parts of {name!r} do not fill its shape {shape}")

    def load() -> NDArray[Any]:
        values = [part.load() for part in parts]
        whole = np.empty(shape, dtype=values[0].dtype if values else np.float32)
        filled = np.zeros(shape, dtype=np.bool_)
        for part, value in zip(parts, values, strict=True):
            box = tuple(slice(start, start + size) for start, size in zip(part.starts, part.shape, strict=True))
            whole[box], filled[box] = value, True
        if not filled.all():
            raise WeightsError(
                f"The parts of the partitioned variable {name!r} overlap.",
                f"they have to fill its shape {shape} once",
                "download or copy the checkpoint again",
            )
        return whole

    return Variable(name, shape, _DTYPES[kind][0], load, num_parts=len(parts))


def _shape(message: Message | None) -> Shape:
    if message is None:
        return ()
    dims = tuple(dim.integer(1) for dim in message.messages(2))
    if len(dims) > 8 or any(dim < 0 for dim in dims) or math.prod(dim or 1 for dim in dims) > 1 << 40:
        raise ProtobufError(f"a shape of {len(dims)} axes: {dims[:8]}")
    return dims


def _slice(message: Message | None, shape: Shape) -> tuple[tuple[int, ...], tuple[int, ...], list[tuple[int, int]]]:
    """Start and size of a part, and its (start, length) pairs as the keys spell them (length -1 = all of it)."""
    extents = list(message.messages(1)) if message is not None else []
    if not extents:
        return (0,) * len(shape), shape, []
    if len(extents) != len(shape):
        raise ProtobufError("a part of another rank than its variable")
    spelled = [(extent.integer(1), extent.integer(2) if 2 in extent else -1) for extent in extents]
    starts = tuple(start for start, _ in spelled)
    sizes = tuple(size if length < 0 else length for (_, length), size in zip(spelled, shape, strict=True))
    if any(start < 0 or start + size > dim for start, size, dim in zip(starts, sizes, shape, strict=True)):
        raise ProtobufError("a part that lies outside its variable")
    return starts, sizes, spelled


def _slice_key(name: str, spelled: list[tuple[int, int]]) -> bytes:
    """Return the key of a part in a V2 index: TensorFlow's OrderedCode of 0, name, rank, starts and lengths."""
    escaped = name.encode().replace(b"\0", b"\0\xff").replace(b"\xff", b"\xff\0") + b"\0\1"
    numbers = b"".join(_ordered(start) + _ordered(length) for start, length in spelled)
    rank = len(spelled)
    return b"\0" + escaped + (bytes([1, rank]) if rank else b"\0") + numbers


def _ordered(value: int) -> bytes:
    """Decode OrderedCode::WriteSignedNumIncreasing: as many leading ones as bytes, then the number."""
    magnitude = value if value >= 0 else ~value
    size = magnitude.bit_length() // 7 + 1
    header = ((1 << size) - 1) << (8 * size - size)
    return ((value & ((1 << 8 * size) - 1)) ^ header).to_bytes(size, "big")


def _string(source: SourceFile, entry: Message) -> memoryview | None:
    """Return a scalar string: its length as a varint, four bytes of checksum, the bytes."""
    size = entry.integer(5)
    if not 0 <= size <= _MAX_STRING:
        return None
    stored = source.read(entry.integer(4), size).data
    position = next((place for place, byte in enumerate(stored[:10]) if byte < 0x80), 9) + 1
    return stored[position + 4 :]


def _name(key: bytes) -> str:
    try:
        return key.decode()
    except UnicodeDecodeError as error:
        raise ProtobufError("a name that is not UTF-8") from error


def _widen(values: NDArray[Any], kind: int) -> NDArray[Any]:
    if _DTYPES[kind][0] != "bfloat16":
        return values
    return (values.astype(np.uint32) << np.uint32(16)).view(np.float32)


def _no_numbers(name: str) -> Values:
    def load() -> NDArray[Any]:
        raise WeightsError(f"The checkpoint entry {name!r} holds no numbers.", "a tensor of numbers", "leave it out")

    return load
