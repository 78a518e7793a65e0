"""HDF5 files walked with care: hard links only, nothing outside the file, sizes checked before anything is read.

HDF5 can point a dataset at bytes of another file (external storage, virtual datasets, external and soft links), declare
shapes that it does not hold, and load compression plug-ins. A weights file needs none of that, so all of it is refused.
The HDF5 library is not used: `hdf5_format` parses the classic layout, and values are read by byte range.
"""

from __future__ import annotations

import math
import re
import struct
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regraft.errors import WeightsError
from regraft.weights.limits import MAX_DEPTH, LimitError, budget
from regraft.weights.readers.archive import Archive, Member
from regraft.weights.readers.byte_range import ByteRange, SourceFile, own_copy
from regraft.weights.readers.hdf5.hdf5_format import (
    BFLOAT16,
    SIGNATURE,
    Chunks,
    DatasetInfo,
    FormatError,
    LinkError,
    NotClassicError,
    ObjectParser,
)
from regraft.weights.readers.hdf5.hdf5_rewrite import rewritten
from regraft.weights.readers.spelling import natural

__all__ = ["SIGNATURE", "Hdf5Image", "Node", "StoredArray", "Tree", "is_hdf5"]

_MAX_OBJECTS = 500_000
_MAX_PARTS = 10_000
# Pieces at the edges may be larger than what is left of the dataset: up to twice along each of four axes.
_MAX_OVERHANG, _FREE = 16, 64 * 2**20
_GZIP, _SHUFFLE, _FLETCHER32, _LZF = 1, 2, 3, 32000
_FILTERS = (_GZIP, _SHUFFLE, _FLETCHER32)
_DAMAGE = (FormatError, struct.error, LookupError, ValueError, TypeError, ArithmeticError, MemoryError, RecursionError)


def is_hdf5(head: bytes) -> bool:
    """Return whether a file starts with an HDF5 superblock (at 0, or behind a user block of 512, 1024 or 2048
    bytes).
    """
    return any(head[start : start + 8] == SIGNATURE for start in (0, 512, 1024, 2048))


@dataclass(frozen=True)
class StoredArray:
    """A numeric dataset: what it declares, and how to get its values."""

    shape: tuple[int, ...]
    dtype: str
    load: Callable[[], NDArray[Any]]


@dataclass(frozen=True)
class Node:
    """An object of the file: its path, and where its header is."""

    path: str
    address: int


@dataclass(frozen=True)
class Hdf5Image:
    """Where the bytes of an HDF5 file are: a whole file, or a part of one.

    `named` is the file that the user gave; `folder` keeps a copy alive that was made of it.
    """

    source: SourceFile
    start: int
    length: int
    named: Path | None = None
    folder: tempfile.TemporaryDirectory[str] | None = None

    @classmethod
    def whole(cls, source: SourceFile) -> Hdf5Image:
        return cls(source, 0, source.size)

    @classmethod
    def of_member(cls, archive: Archive, member: Member) -> Hdf5Image:
        """Return a member of a zip file, once its checksum holds; a deflated one is inflated into a file of its own.

        Raises:
            WeightsError: It is damaged.
        """
        if not member.deflated:
            archive.check(member)
            return cls(archive.source, member.start, member.size)
        folder = tempfile.TemporaryDirectory(prefix="regraft-hdf5-")
        inflated = Path(folder.name) / "inflated.h5"
        with inflated.open("wb") as stream:
            for piece in archive.pieces(member):
                stream.write(piece)
        return cls(own_copy(inflated), 0, member.size, archive.source.path, folder)

    @property
    def path(self) -> Path:
        return self.named or self.source.path

    @contextmanager
    def opened(self) -> Iterator[Tree]:
        """Open it for reading.

        Raises:
            WeightsError: The file is cut, damaged or hostile.
        """
        with ExitStack() as stack:
            try:
                yield Tree(self, self._view(stack))
            except NotClassicError as error:
                raise self.refused("it", f"has {error}, which no copy of it could avoid") from error
            except LinkError as error:
                raise self.refused("a part of it", str(error)) from error
            except _DAMAGE as error:
                raise self.damaged(error) from error

    def classic(self) -> Hdf5Image:
        """Return this file, or a copy in the classic layout where it has the newer one.

        Raises:
            WeightsError: As `opened`.
        """
        if self.is_classic():
            return self
        copy, folder = rewritten(self.source.path, self.start, self.length)
        source = own_copy(copy)
        return Hdf5Image(source, 0, source.size, self.path, folder)

    def is_classic(self) -> bool:
        """Return whether the file is in the layout that is read here, not by h5py.

        Raises:
            WeightsError: As `opened`.
        """
        with self.opened() as tree:
            return tree.is_classic()

    def mentions(self, word: bytes) -> bool:
        """Return whether a word stands anywhere in the file: a cheap guess at what it is."""
        with ExitStack() as stack:
            return re.search(re.escape(word), self._view(stack)) is not None

    def damaged(self, why: object) -> WeightsError:
        reason = (str(why).splitlines() or [""])[0][:200] or type(why).__name__
        return WeightsError(
            f"{str(self.path)!r} is truncated or damaged: {reason}.",
            "a whole HDF5 file",
            "download or copy it again, and compare its size with the original's",
        )

    def refused(self, what: str, why: str) -> WeightsError:
        return WeightsError(
            f"{str(self.path)!r} is refused: {what} {why}.",
            "a weights file holds its own numbers, in plain groups and datasets",
            "do not use it unless you know who made it; if you do, write it again with Keras",
        )

    def _view(self, stack: ExitStack) -> memoryview:
        whole = stack.enter_context(self.source.mapped())
        if self.start + self.length > len(whole):
            raise FormatError("it ends before its last part")
        return stack.enter_context(whole[self.start : self.start + self.length])


class Tree:
    """An open HDF5 file, seen through the rules above."""

    def __init__(self, image: Hdf5Image, view: memoryview) -> None:
        self._image = image
        self._objects = ObjectParser(view)
        self._num_objects = 0
        self._num_bytes = 0

    @property
    def root(self) -> Node:
        return Node("", self._objects.root)

    def is_classic(self) -> bool:
        """Return whether every object is in the classic layout; each is touched once."""
        if not self._objects.is_classic:
            return False
        seen, todo = {self._objects.root}, [self._objects.root]
        try:
            while todo:
                for address in self._touched(todo.pop()):
                    if address not in seen:
                        seen.add(address)
                        todo.append(address)
        except NotClassicError:
            return False
        return True

    def _touched(self, address: int) -> list[int]:
        self._count()
        self._objects.attribute(address, "")
        if self._objects.is_group(address):
            return [child for child in self._objects.members(address).values() if child is not None]
        try:
            chunks = self._objects.dataset(address).chunks
        except (LinkError, FormatError):  # an error only for the one who reads it
            return []
        if chunks and any(code == _LZF for code, _ in chunks.filters):
            raise NotClassicError("lzf")
        return []

    def has(self, group: Node, name: str) -> bool:
        return name in self._objects.members(group.address)

    def has_attribute(self, node: Node, name: str) -> bool:
        return self._objects.attribute(node.address, name) is not None

    def names(self, group: Node) -> list[str]:
        """Return member names in natural order (HDF5's own order is alphabetical)."""
        return sorted(self._objects.members(group.address), key=natural)

    def group(self, parent: Node, path: str) -> Node:
        """Return a group below another one; layer names may hold slashes.

        Raises:
            WeightsError: It is missing, no group, or reached over a link.
        """
        found = self._follow(parent, path)
        if not self._objects.is_group(found.address):
            raise self._image.damaged(f"{found.path!r} is not a group")
        return found

    def is_group(self, parent: Node, name: str) -> bool:
        return self._objects.is_group(self._follow(parent, name).address)

    def array(self, parent: Node, path: str) -> StoredArray:
        """Return a numeric dataset.

        Raises:
            WeightsError: It is missing, damaged, not numeric, stored elsewhere, or declares more than it holds.
        """
        node = self._follow(parent, path)
        if self._objects.is_group(node.address):
            raise self._image.damaged(f"{node.path!r} is a group, not a dataset")
        try:
            info = self._objects.dataset(node.address)
        except LinkError as error:
            raise self._image.refused(f"dataset {node.path!r}", str(error)) from error
        return self._stored(info, f"dataset {node.path!r}")

    def text(self, node: Node, name: str) -> str | None:
        """Return a string attribute, or None where there is none."""
        values = self._objects.attribute(node.address, name)
        return values[0] if values and len(values) == 1 and isinstance(values[0], str) else None

    def texts(self, node: Node, name: str) -> list[str] | None:
        """Return a list of strings, put together again where Keras split it in `name0`, `name1`, ... (64,512 bytes
        each).
        """
        values = self._objects.attribute(node.address, name)
        if values is not None:
            return self._texts(values, name)
        parts: list[str] = []
        for index in range(_MAX_PARTS):
            values = self._objects.attribute(node.address, f"{name}{index}")
            if values is None:
                return parts if index else None
            parts += self._texts(values, name)
        raise self._image.refused(f"attribute {name!r}", "has too many parts")

    def number(self, node: Node, name: str) -> int | None:
        """Return an integer attribute, or None."""
        values = self._objects.attribute(node.address, name)
        return values[0] if values and len(values) == 1 and isinstance(values[0], int) else None

    def path_of(self, group: Node, name: str) -> str:
        """Return the whole path of a member, without a leading slash."""
        return f"{group.path}/{name}".lstrip("/")

    def too_deep(self, path: str) -> WeightsError:
        return self._image.refused(f"the path {path[:80]!r}", "is too deep (or contains a cycle)")

    def _texts(self, values: list[str] | list[int], name: str) -> list[str]:
        texts = [value for value in values if isinstance(value, str)]
        if len(texts) != len(values):
            raise self._image.damaged(f"the attribute {name!r} holds something else than names")
        return texts

    def _count(self) -> None:
        self._num_objects += 1
        if self._num_objects > _MAX_OBJECTS:
            raise self._image.refused("it", f"has more than {_MAX_OBJECTS} objects, or contains a cycle")

    def _follow(self, parent: Node, path: str) -> Node:
        parts = path.split("/")
        if len(parts) > MAX_DEPTH:
            raise self.too_deep(path)
        found = parent
        for part in parts:
            found = self._member(found, part)
        return found

    def _member(self, group: Node, name: str) -> Node:
        self._count()
        if name in ("", ".", "..") or "\0" in name:
            raise self._image.refused(f"the path to {name!r} in {group.path!r}", "is not a plain path")
        members = self._objects.members(group.address)
        if name not in members:
            raise self._image.damaged(f"it names {name!r} in {group.path!r}, which does not exist")
        address = members[name]
        if address is None:
            raise self._image.refused(f"{name!r} in {group.path!r}", "is a link, and may lead out of the file")
        return Node(self.path_of(group, name), address)

    def _stored(self, info: DatasetInfo, where: str) -> StoredArray:
        if info.dtype is None:
            raise self._image.refused(where, "is not numeric")
        declared = math.prod(info.shape) * info.dtype.itemsize
        if info.chunks:
            self._require_whole_chunks(info, where)
        self._require_size(where, declared, info)
        name = "bfloat16" if info.dtype == BFLOAT16 else info.dtype.name
        return StoredArray(info.shape, name, self._loader(info, info.dtype, declared))

    def _require_size(self, where: str, declared: int, info: DatasetInfo) -> None:
        compressed = info.chunks is not None and bool(info.chunks.filters)
        if compressed:
            self._unpacked(declared, info.stored, where)
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

    def _require_whole_chunks(self, info: DatasetInfo, where: str) -> None:
        chunks = info.chunks
        if chunks is None or info.dtype is None:
            return
        unknown = [code for code, _ in chunks.filters if code not in _FILTERS]
        if unknown:
            raise self._image.refused(where, f"needs the HDF5 filter plug-in {unknown[0]}")
        if 0 in chunks.shape or len({place for place, *_ in chunks.pieces}) != len(chunks.pieces):
            raise self._image.damaged(f"the pieces of {where} overlap")
        wanted = math.prod(-(-length // step) for length, step in zip(info.shape, chunks.shape, strict=True))
        if len(chunks.pieces) != wanted:
            raise self._image.damaged(f"{where} has {len(chunks.pieces)} pieces of {wanted}")
        # A chunk may be larger than the dataset, and is inflated as a whole.
        size = math.prod(chunks.shape) * info.dtype.itemsize
        self._unpacked(size, min((stored for _, _, stored, _ in chunks.pieces), default=0), f"a piece of {where}")
        declared = math.prod(info.shape) * info.dtype.itemsize
        if len(chunks.pieces) * size > _MAX_OVERHANG * declared + _FREE:
            raise self._image.refused(where, f"has pieces of {size} bytes each, and declares {declared} in all")

    def _unpacked(self, declared: int, stored: int, where: str) -> None:
        try:
            budget().unpack(declared, stored, where)
        except LimitError as error:
            raise self._image.refused(
                where, f"declares {declared} bytes and holds {stored} (a decompression bomb)"
            ) from error

    def _loader(self, info: DatasetInfo, dtype: np.dtype[Any], num_bytes: int) -> Callable[[], NDArray[Any]]:
        image = self._image
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
            piece = _unfiltered(raw, chunks, mask, dtype).reshape(chunks.shape)
            ends = tuple(min(at + step, end) for at, step, end in zip(place, chunks.shape, shape, strict=True))
            inner = tuple(slice(0, end - at) for at, end in zip(place, ends, strict=True))
            values[tuple(slice(at, end) for at, end in zip(place, ends, strict=True))] = piece[inner]
        except (zlib.error, ValueError) as error:
            raise image.damaged(error) from error
    return _widened(values.astype(dtype.newbyteorder("="), copy=False))


def _unfiltered(raw: bytes, chunks: Chunks, mask: int, dtype: np.dtype[Any]) -> NDArray[Any]:
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


def _widened(values: NDArray[Any]) -> NDArray[Any]:
    """Return bfloat16 (HDF5 knows it as two opaque bytes) as float32; everything else as it is."""
    if values.dtype.kind != "V":
        return values
    wide = np.ascontiguousarray(values).view("<u2").astype(np.uint32)
    return (wide << np.uint32(16)).view(np.float32).reshape(values.shape)
