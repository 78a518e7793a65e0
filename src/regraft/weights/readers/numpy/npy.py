"""NumPy's `.npy`: a plain array, or the dict of arrays that Caffe converters saved as a pickled object.

`allow_pickle` is never used: an object array goes through the closed machine in `numpy_pickle`, which knows arrays and
plain containers and nothing that could be called. The order of a dict is not used (Python 2 wrote it at random).
Source: numpy/lib/format.py (NEP 1).
"""

from __future__ import annotations

import ast
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from regraft.errors import WeightsError
from regraft.weights.file import WeightFile
from regraft.weights.limits import LimitError, check_shape
from regraft.weights.readers.byte_range import ByteRange, SourceFile, open_source
from regraft.weights.readers.numpy.array_names import NameClashError, NamedArray, named_tensors
from regraft.weights.readers.numpy.numpy_pickle import Array, PickleError, Scalar, plain_dtype, unpickle
from regraft.weights.readers.spelling import refuse_key

__all__ = ["FORMAT", "MAGIC", "Header", "HeaderError", "leaves", "parse_header", "read", "sniff"]

FORMAT = "npy"
MAGIC = b"\x93NUMPY"
_MAX_HEADER = 64 * 1024
_MAX_VISITS = 1_000_000
_MAX_DEPTH = 16


class HeaderError(ValueError):
    """A header that is none; readers turn it into a `WeightsError` that names the file."""


@dataclass(frozen=True)
class Header:
    """What the header of an array says, and how long it is."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    fortran: bool
    size: int

    @property
    def num_bytes(self) -> int:
        return int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize if self.shape else self.dtype.itemsize


def sniff(path: Path, head: bytes) -> bool:
    """Return whether the first bytes are NumPy's magic string."""
    return head.startswith(MAGIC)


def read(path: Path, *, key: str | None = None) -> WeightFile:
    """Read the table of contents of an `.npy` file; values stay on the disk.

    Raises:
        WeightsError: Damaged, more declared than there, or a pickle that wants anything but arrays and containers.
    """
    refuse_key(path, key)
    source = open_source(path)
    try:
        arrays = list(_arrays(source))
        tensors, notes = named_tensors(arrays)
    except (HeaderError, PickleError, NameClashError) as error:
        raise _refused(source, str(error)) from error
    if not arrays:
        raise _refused(source, "it holds no array of numbers")
    return WeightFile(path=path, format=FORMAT, producer="numpy", tensors=tensors, ordered=False, notes=tuple(notes))


def parse_header(head: bytes) -> Header:
    """Return the header at the start of an `.npy` file.

    Raises:
        HeaderError: It is cut, not a literal, too long, or of a dtype that is no number and no object.
    """
    if not head.startswith(MAGIC) or len(head) < 10:
        raise HeaderError("the magic string is missing")
    wide = head[6] in (2, 3)
    if head[6:8] not in (b"\x01\x00", b"\x02\x00", b"\x03\x00"):
        raise HeaderError(f"its version {head[6]}.{head[7]} is unknown")
    start = 12 if wide else 10
    if len(head) < start:
        raise HeaderError("its header is truncated")
    length = struct.unpack("<I" if wide else "<H", head[8:start])[0]
    text = head[start : start + length]
    if length > _MAX_HEADER or len(text) != length:
        raise HeaderError("its header is truncated or too long")
    return _header(text, start + length, "utf-8" if head[6] == 3 else "latin1")


def _header(text: bytes, size: int, encoding: str) -> Header:
    try:
        fields = ast.literal_eval(text.decode(encoding).strip())
    except (ValueError, SyntaxError, MemoryError, RecursionError, TypeError) as error:
        raise HeaderError("its header is not a plain Python literal") from error
    if not isinstance(fields, dict) or set(fields) != {"descr", "fortran_order", "shape"}:
        raise HeaderError("its header lacks descr, fortran_order or shape")
    descr, fortran, shape = fields["descr"], fields["fortran_order"], fields["shape"]
    if not isinstance(descr, str) or not isinstance(fortran, bool) or not _is_shape(shape):
        raise HeaderError("its header does not describe a plain array")
    try:
        return Header(plain_dtype(descr), shape, fortran, size)
    except PickleError as error:
        raise HeaderError(str(error)) from error


def _is_shape(shape: Any) -> bool:
    try:
        return isinstance(shape, tuple) and check_shape(shape) == shape
    except LimitError:
        return False


def _arrays(source: SourceFile) -> Iterator[NamedArray]:
    header = parse_header(bytes(source.read(0, min(source.size, _MAX_HEADER + 12)).data))
    if header.dtype.hasobject:
        with source.mapped() as view:
            content = unpickle(view, header.size)
        yield from _unfolded(source, content, header)
        return
    if header.dtype.kind not in "fiub":
        raise HeaderError(f"it is an array of {header.dtype}, not of numbers")
    if header.size + header.num_bytes != source.size:
        raise HeaderError(f"it declares {header.num_bytes} bytes of values and holds {source.size - header.size}")
    span = ByteRange(source, header.size, header.num_bytes)
    yield NamedArray((source.path.stem,), header.shape, header.dtype, span, header.fortran)


def _unfolded(source: SourceFile, content: Any, header: Header) -> Iterator[NamedArray]:
    """Yield the arrays of a pickled object array, under the path of their keys."""
    if not isinstance(content, Array) or content.items is None or content.shape != header.shape:
        raise HeaderError("its pickle is not the array that the header announces")
    root = content.items[0] if content.shape == () else content.items
    yield from leaves(source, root)


def leaves(source: SourceFile, root: Any) -> Iterator[NamedArray]:
    """Yield the arrays of numbers in nested containers, under the path of their keys.

    Raises:
        HeaderError: The containers are nested too deeply, or have keys that are no names.
    """
    yield from _leaves(source, root, (), iter(range(_MAX_VISITS)))


def _leaves(source: SourceFile, item: Any, path: tuple[str, ...], visits: Iterator[int]) -> Iterator[NamedArray]:
    if len(path) > _MAX_DEPTH or next(visits, None) is None:
        raise HeaderError("its containers are nested too deeply, or contain themselves")
    if isinstance(item, dict):
        for name, value in item.items():
            yield from _leaves(source, value, (*path, _word(name)), visits)
    elif isinstance(item, list | tuple):
        for index, value in enumerate(item):
            yield from _leaves(source, value, (*path, str(index)), visits)
    elif isinstance(item, Array) and item.items is not None:
        yield from _leaves(source, item.items[0] if item.shape == () else item.items, path, visits)
    elif isinstance(item, Array | Scalar) and item.dtype.kind in "fiub" and item.data is not None:
        yield NamedArray(path or (source.path.stem,), item.shape, item.dtype, item.values(source), item.fortran)


def _word(name: Any) -> str:
    if isinstance(name, bytes):
        return name.decode("latin1")
    if isinstance(name, str | int):
        return str(name)
    raise HeaderError(f"its dict has a key that is not a string ({type(name).__name__})")


def _refused(source: SourceFile, why: str) -> WeightsError:
    return WeightsError(
        f"{str(source.path)!r} cannot be read as weights: {why}.",
        "an .npy file with an array of numbers, or a dict of such arrays; nothing in it is ever executed",
        "download it again, or ask for the same weights as .npz or .safetensors",
    )
