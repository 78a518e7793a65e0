"""Flax's `.msgpack` (`flax.serialization`, `flax_model.msgpack` of the hub): nested maps with arrays in an extension.

The collections `params` and `batch_stats` are one set of layers here. Kernels lie as in TensorFlow (HWIO, IO); those of
layers that Flax named `ConvTranspose_N` run the other way round in space than those of torch, and are turned when read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regraft.errors import WeightsError
from regraft.weights.file import SourceTensor, WeightFile
from regraft.weights.limits import budget, check_name, check_shape, shown
from regraft.weights.readers.byte_range import ByteRange, SourceFile, open_source
from regraft.weights.readers.flax.msgpack import Extension, MessageError, Span, unpack
from regraft.weights.readers.pickle.weight_sets import Leaves, choose_set
from regraft.weights.readers.spelling import role_of

__all__ = ["FORMAT", "read", "sniff"]

FORMAT = "flax_msgpack"
_ARRAY = 1
_CHUNKED = "__msgpack_chunked_array__"
_COLLECTIONS = ("params", "batch_stats")
_NUMBERS = ("float16", "float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
_AXES = {4: "HWIO", 2: "IO"}
_ARRAY_BYTES = 500


@dataclass(frozen=True)
class _Array:
    """One array: what it declares, and where its bytes are (in several pieces where it is large)."""

    shape: tuple[int, ...]
    dtype: str
    pieces: tuple[ByteRange, ...]

    def load(self) -> NDArray[Any]:
        kind = np.dtype("<u2") if self.dtype == "bfloat16" else np.dtype(self.dtype).newbyteorder("<")
        stored = [piece.read() for piece in self.pieces]
        whole = stored[0] if len(stored) == 1 else np.concatenate(stored) if stored else np.zeros(0, np.uint8)
        values = whole.view(kind).reshape(self.shape)
        if self.dtype == "bfloat16":
            return (values.astype(np.uint32) << np.uint32(16)).view(np.float32)
        return values.astype(kind.newbyteorder("="), copy=False)


def sniff(path: Path, head: bytes) -> bool:
    """Return whether the first bytes are a map of MessagePack whose first key is a name."""
    if not path.is_file() or len(head) < 4:
        return False
    start = {0xDE: 3, 0xDF: 5}.get(head[0], 1 if 0x81 <= head[0] <= 0x8F else 0)
    if not start or not 0xA1 <= head[start] <= 0xBF:
        return False
    name = head[start + 1 : start + 1 + (head[start] & 0x1F)].decode("utf-8", "replace")
    after = head[start + 1 + (head[start] & 0x1F) :][:1]
    return name.isprintable() and "\ufffd" not in name and after != b"\xc1"


def read(path: Path, *, key: str | None = None) -> WeightFile:
    """Read the arrays of a file of `flax.serialization`.

    Args:
        path: The file.
        key: Which map to take, as a dotted path (`ema_params`); None for `params` and `batch_stats`.

    Raises:
        WeightsError: A damaged or hostile file, no array in it, no such key.
    """
    source = open_source(path)
    notes: list[str] = []
    try:
        with source.mapped() as view:
            root = unpack(view)
            if not isinstance(root, dict):
                raise MessageError("it is not a map")
            found = dict(_leaves(view, source, root, ()))
    except ValueError as error:
        raise _damaged(path, str(error)) from error
    chosen, notes = _chosen(_nested(found), key, path)
    tensors: dict[str, SourceTensor] = {}
    for keys, array in chosen:
        name = "/".join(keys)
        if name in tensors:
            raise _damaged(path, f"two arrays are named {shown(name)}")
        check_name(name)
        tensors[name] = _tensor(keys, array)
    if not tensors:
        raise _damaged(path, "it holds no array of numbers")
    return WeightFile(
        path=path,
        format=FORMAT,
        producer="flax",
        tensors=tensors,
        ordered=False,  # JAX sorts the keys of maps as it goes over them
        notes=tuple(notes),
    )


def _leaves(
    view: memoryview, source: SourceFile, node: Mapping[str, Any], path: tuple[str, ...]
) -> Iterator[tuple[tuple[str, ...], _Array]]:
    """Yield the arrays of nested maps by the path of their keys."""
    for name, value in node.items():
        budget().step()
        if isinstance(value, Extension) and value.kind == _ARRAY:
            array = _array(view, source, value.span)
            if array is not None:
                yield (*path, name), array
        elif isinstance(value, dict) and value.get(_CHUNKED) is True:
            array = _whole(view, source, value)
            if array is not None:
                yield (*path, name), array
        elif isinstance(value, dict):
            yield from _leaves(view, source, value, (*path, name))


def _array(view: memoryview, source: SourceFile, span: Span) -> _Array | None:
    """Return what an extension holds: shape, dtype and bytes; None for numbers that regraft does not read."""
    parts = unpack(view, span.start, span.start + span.size)
    if not isinstance(parts, list) or len(parts) != 3 or not isinstance(parts[2], Span):
        raise MessageError("it holds an array without shape, dtype and bytes")
    shape, dtype, stored = check_shape(parts[0]), parts[1], parts[2]
    if isinstance(dtype, Span):
        dtype = bytes(view[dtype.start : dtype.start + min(dtype.size, 32)]).decode("latin1")
    if dtype not in (*_NUMBERS, "bfloat16"):
        return None
    if stored.size != math.prod(shape) * _width(dtype):
        raise MessageError(f"an array of shape {shape} and dtype {dtype} has {stored.size} bytes")
    budget().hold(_ARRAY_BYTES)
    return _Array(shape, dtype, (ByteRange(source, stored.start, stored.size),))


def _whole(view: memoryview, source: SourceFile, value: Mapping[str, Any]) -> _Array | None:
    """Return an array that was cut into chunks, because it is large."""
    lengths, chunks = value.get("shape"), value.get("chunks")
    if not isinstance(lengths, dict) or not isinstance(chunks, dict):
        raise MessageError("it holds chunks without a shape")
    shape = check_shape([lengths.get(str(axis)) for axis in range(len(lengths))])
    pieces = [chunks.get(str(number)) for number in range(len(chunks))]
    found = [_array(view, source, piece.span) for piece in pieces if isinstance(piece, Extension)]
    arrays = [array for array in found if array is not None]
    if len(arrays) != len(pieces) or len({array.dtype for array in arrays}) > 1 or not arrays:
        raise MessageError("it holds chunks that do not fit together")
    if sum(math.prod(array.shape) for array in arrays) != math.prod(shape):
        raise MessageError(f"the chunks of an array of shape {shape} hold other numbers of values")
    return _Array(shape, arrays[0].dtype, tuple(piece for array in arrays for piece in array.pieces))


def _width(dtype: str) -> int:
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize


def _nested(found: Mapping[tuple[str, ...], _Array]) -> dict[str, Any]:
    """Return maps with arrays in them only."""
    root: dict[str, Any] = {}
    for path, array in found.items():
        node = root
        for name in path[:-1]:
            node = node.setdefault(name, {})
        node[path[-1]] = array
    return root


def _chosen(root: Any, key: str | None, path: Path) -> tuple[list[tuple[tuple[str, ...], _Array]], list[str]]:
    """Return the arrays of a set, by the path of their keys below its collections, and what was chosen."""
    leaves = Leaves(str(path), lambda value: isinstance(value, _Array), lambda why: _damaged(path, why))
    if key is not None:
        root, notes = choose_set(root, key, leaves)
        return list(_below(root, ())), notes
    target = root.get("optimizer", {}).get("target") if isinstance(root.get("optimizer"), dict) else None
    if "params" not in root and isinstance(target, dict):  # Flax before 0.4
        root = target
    notes = []
    parts = [root]
    if isinstance(root.get("params"), dict):
        parts = [root[name] for name in _COLLECTIONS if isinstance(root.get(name), dict)]
        others = [name for name in root if name not in _COLLECTIONS]
        more = f"; the file also contains {', '.join(name[:80] for name in others[:8])}" if others else ""
        notes = [f"using the collections {' and '.join(name for name in _COLLECTIONS if name in root)}{more}"]
    return [leaf for part in parts for leaf in _below(part, ())], notes


def _below(node: Any, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], _Array]]:
    for name, value in node.items() if isinstance(node, dict) else ():
        if isinstance(value, _Array):
            yield (*path, name), value
        else:
            yield from _below(value, (*path, name))


def _tensor(keys: tuple[str, ...], array: _Array) -> SourceTensor:
    name, layer, role = "/".join(keys), "/".join(keys[:-1]), role_of(keys[-1])
    shape, load, axes = array.shape, array.load, _AXES.get(len(array.shape)) if role == "kernel" else None
    if role == "kernel" and len(shape) == 4 and len(keys) > 1 and keys[-2].startswith("ConvTranspose"):
        role, axes, load = "transpose_kernel", "IOHW", _turned(load)
        shape = (shape[2], shape[3], shape[0], shape[1])
    return SourceTensor(name, shape, array.dtype, layer, load, role, axes)


def _turned(load: Callable[[], NDArray[Any]]) -> Callable[[], NDArray[Any]]:
    return lambda: np.ascontiguousarray(load()[::-1, ::-1].transpose(2, 3, 0, 1))


def _damaged(path: Path, why: str) -> WeightsError:
    return WeightsError(
        f"{str(path)!r} cannot be read as a file of Flax: {why}.",
        "a whole file of `flax.serialization` (MessagePack)",
        "copy or download the file again, and compare its size or checksum with the original",
    )
