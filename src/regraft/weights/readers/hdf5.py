"""HDF5 files walked with care: hard links only, nothing outside the file, sizes checked before anything is read.

HDF5 can point a dataset at bytes of another file (external storage, virtual datasets, external and soft links), declare
shapes that it does not hold, and load compression plug-ins. A weights file needs none of that, so all of it is refused.
Values of plain contiguous datasets are read by byte range, without the HDF5 library.
Source of the layout names: the HDF5 file format specification and h5py's low-level interface.
"""

from __future__ import annotations

import io
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from regraft.errors import WeightsError
from regraft.weights.readers.span import SourceFile, Span
from regraft.weights.readers.spelling import natural

__all__ = ["SIGNATURE", "Hdf5Image", "StoredArray", "Tree", "is_hdf5"]

SIGNATURE = b"\x89HDF\r\n\x1a\n"
_MAX_OBJECTS = 500_000
_MAX_DEPTH = 64
_MAX_TEXT = 256 * 2**20
_MAX_NAMES = 1_000_000
# Bytes declared against bytes stored, for compressed datasets (gzip itself cannot do better than about 1,030).
_MAX_RATIO = 1000
_FILTERS = {1: "gzip", 2: "shuffle", 3: "fletcher32", 32000: "lzf"}
_DAMAGE = (OSError, RuntimeError, LookupError, ValueError, TypeError, MemoryError, ArithmeticError)


def is_hdf5(head: bytes) -> bool:
    """Whether a file starts with an HDF5 superblock (at 0, or behind a user block of 512, 1024 or 2048 bytes)."""
    return any(head[start : start + 8] == SIGNATURE for start in (0, 512, 1024, 2048))


@dataclass(frozen=True)
class StoredArray:
    """A numeric dataset: what it declares, and how to get its values."""

    shape: tuple[int, ...]
    dtype: str
    load: Callable[[], NDArray[Any]]


@dataclass(frozen=True)
class Hdf5Image:
    """Where the bytes of an HDF5 file are: a whole file, a part of one, or memory (an inflated zip member)."""

    source: SourceFile
    start: int
    length: int
    content: bytes | None = None

    @classmethod
    def whole(cls, source: SourceFile) -> Hdf5Image:
        return cls(source, 0, source.size)

    @contextmanager
    def opened(self) -> Iterator[Tree]:
        """Open it for reading.

        Raises:
            WeightsError: h5py is missing, or the file is cut, damaged or hostile.
        """
        h5py = _import_h5py(self.source)
        try:
            with self._stream() as stream, h5py.File(stream, "r") as file:
                yield Tree(h5py, self, file)
        except WeightsError:
            raise
        except _DAMAGE as error:
            raise self.damaged(error) from error

    def damaged(self, why: object) -> WeightsError:
        reason = (str(why).splitlines() or [type(why).__name__])[0][:200] or type(why).__name__
        return WeightsError(
            f"{str(self.source.path)!r} is cut short or damaged: HDF5 cannot read it ({reason}).",
            "A whole HDF5 file was expected.",
            "Download or copy it again, and compare its size with the original's.",
        )

    def refused(self, what: str, why: str) -> WeightsError:
        return WeightsError(
            f"{str(self.source.path)!r} is refused: {what} {why}.",
            "A weights file holds its own numbers, in plain groups and datasets.",
            "Do not use it unless you know who made it; if you do, write it again with Keras.",
        )

    @contextmanager
    def _stream(self) -> Iterator[Any]:
        if self.content is not None:
            yield io.BytesIO(self.content)
            return
        with self.source.path.open("rb", buffering=0) as stream:
            yield _Part(stream.fileno(), self.start, self.length)


class _Part(io.RawIOBase):
    """A byte range of an open file, as a file."""

    def __init__(self, descriptor: int, start: int, length: int) -> None:
        self._descriptor, self._start, self._length, self._position = descriptor, start, length, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._length}[whence]
        self._position = max(0, base + offset)
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: Any) -> int:
        wanted = min(len(buffer), max(0, self._length - self._position))
        got = os.preadv(self._descriptor, [memoryview(buffer)[:wanted]], self._start + self._position) if wanted else 0
        self._position += got
        return got


class Tree:
    """An open HDF5 file, seen through the rules above."""

    def __init__(self, h5py: Any, image: Hdf5Image, root: Any) -> None:
        self.root = root
        self._h5py = h5py
        self._image = image
        self._num_objects = 0
        self._num_bytes = 0

    def has(self, group: Any, name: str) -> bool:
        return name in group

    def names(self, group: Any) -> list[str]:
        """Member names in natural order (HDF5's own order is alphabetical)."""
        if len(group) > _MAX_OBJECTS:
            raise self._image.refused(f"group {group.name!r}", f"has {len(group)} members")
        return sorted(group, key=natural)

    def group(self, parent: Any, path: str) -> Any:
        """A group below another one; layer names may hold slashes.

        Raises:
            WeightsError: It is missing, no group, or reached over a link.
        """
        found = self._follow(parent, path)
        if not isinstance(found, self._h5py.Group):
            raise self._image.damaged(f"{path!r} in {parent.name!r} is no group")
        return found

    def is_group(self, parent: Any, name: str) -> bool:
        return isinstance(self._follow(parent, name), self._h5py.Group)

    def array(self, parent: Any, path: str) -> StoredArray:
        """A numeric dataset.

        Raises:
            WeightsError: It is missing, damaged, not numeric, stored elsewhere, or declares more than it holds.
        """
        dataset = self._follow(parent, path)
        if not isinstance(dataset, self._h5py.Dataset):
            raise self._image.damaged(f"{path!r} in {parent.name!r} is no dataset")
        return self._stored(dataset, f"dataset {dataset.name!r}")

    def text(self, item: Any, name: str) -> str | None:
        """A string attribute, or None where there is none."""
        value = self._attribute(item, name)
        if value is None:
            return None
        values = _strings(value)
        return values[0] if len(values) == 1 else None

    def texts(self, item: Any, name: str) -> list[str] | None:
        """A list of strings, put together again where Keras split it in `name0`, `name1`, ... (64,512 bytes each)."""
        value = self._attribute(item, name)
        if value is not None:
            return _strings(value)
        parts: list[str] = []
        for index in range(_MAX_NAMES):
            value = self._attribute(item, f"{name}{index}")
            if value is None:
                return parts if index else None
            parts += _strings(value)
        raise self._image.refused(f"attribute {name!r}", "has too many parts")

    def path_of(self, group: Any, name: str) -> str:
        """The whole path of a member, without the leading slash."""
        return f"{group.name}/{name}".lstrip("/")

    def too_deep(self, path: str) -> WeightsError:
        return self._image.refused(f"the path {path[:80]!r}", "is too deep (or goes in a circle)")

    def number(self, item: Any, name: str) -> int | None:
        """An integer attribute, or None."""
        if name not in item.attrs or item.attrs.get_id(name).shape not in ((), (1,)):
            return None
        value = np.asarray(item.attrs[name])
        return int(value.reshape(-1)[0]) if value.dtype.kind in "iu" else None

    def _attribute(self, item: Any, name: str) -> Any:
        if name not in item.attrs:
            return None
        handle = item.attrs.get_id(name)
        count = math.prod(handle.shape or ())
        if count > _MAX_NAMES or count * handle.dtype.itemsize > _MAX_TEXT:
            raise self._image.refused(f"attribute {name!r} of {item.name!r}", f"declares {count} entries")
        return item.attrs[name]

    def _follow(self, parent: Any, path: str) -> Any:
        parts = path.split("/")
        if len(parts) > _MAX_DEPTH:
            raise self._image.refused(f"the path {path[:80]!r}...", "is too deep")
        found = parent
        for part in parts:
            found = self._member(found, part)
        return found

    def _member(self, group: Any, name: str) -> Any:
        self._num_objects += 1
        if self._num_objects > _MAX_OBJECTS:
            raise self._image.refused("it", f"has more than {_MAX_OBJECTS} objects")
        where = f"{name!r} in {getattr(group, 'name', '?')!r}"
        if name in ("", ".", "..") or "\0" in name:
            raise self._image.refused(f"the path to {where}", "is no plain path")
        if not isinstance(group, self._h5py.Group) or name not in group:
            raise self._image.damaged(f"it names {where}, which is not there")
        link = _link(group, name)
        if not isinstance(link, self._h5py.HardLink):
            raise self._image.refused(where, f"is a link ({type(link).__name__}), and may lead out of the file")
        return group[name]

    def _stored(self, dataset: Any, where: str) -> StoredArray:
        self._require_own_bytes(dataset, where)
        dtype = dataset.dtype
        shape = dataset.shape
        if shape is None or not _is_numeric(dtype):
            raise self._image.refused(where, f"holds {dtype}, no numbers")
        declared, stored = math.prod(shape) * dtype.itemsize, dataset.id.get_storage_size()
        self._require_size(where, declared, stored, compressed=bool(_filters(dataset)))
        name = "bfloat16" if dtype == np.dtype("V2") else dtype.name
        return StoredArray(shape, name, self._loader(dataset, declared))

    def _require_own_bytes(self, dataset: Any, where: str) -> None:
        if dataset.is_virtual or dataset.external is not None or dataset.id.get_create_plist().get_external_count():
            raise self._image.refused(where, "takes its values from another file (external or virtual storage)")
        for code in _filters(dataset):
            if code not in _FILTERS:
                raise self._image.refused(where, f"needs the HDF5 filter plug-in {code}")

    def _require_size(self, where: str, declared: int, stored: int, *, compressed: bool) -> None:
        held = stored * _MAX_RATIO if compressed else stored
        if declared > held or (stored > self._image.length):
            raise self._image.refused(where, f"declares {declared} bytes and holds {stored}")
        self._num_bytes += stored
        if self._num_bytes > self._image.length:
            raise self._image.refused(where, "shares its bytes with other datasets")

    def _loader(self, dataset: Any, num_bytes: int) -> Callable[[], NDArray[Any]]:
        dtype, shape, name = dataset.dtype, dataset.shape, dataset.name
        offset = dataset.id.get_offset() if _is_plain(self._h5py, dataset) else None
        if offset is None or self._image.content is not None:
            image = self._image
            return lambda: _widened(_load_through_library(image, name, shape, dtype))
        if offset + num_bytes > self._image.length:
            raise self._image.damaged(f"the values of {name!r} end behind the end of the file")
        span = Span(self._image.source, self._image.start + offset, num_bytes)
        return lambda: _widened(span.array(dtype, shape))


def _import_h5py(source: SourceFile) -> Any:
    try:
        import h5py
    except ImportError as error:
        raise WeightsError(
            f"{str(source.path)!r} is an HDF5 file, and the package that reads those (h5py) is not installed.",
            "Keras files (.h5, .hdf5, .weights.h5, .keras) need it.",
            'Type: pip install "regraft[h5]"',
        ) from error
    return h5py


def _link(group: Any, name: str) -> Any:
    try:
        return group.get(name, getlink=True)
    except TypeError:  # h5py's answer to a user-defined link class
        return None


def _filters(dataset: Any) -> list[int]:
    settings = dataset.id.get_create_plist()
    return [settings.get_filter(index)[0] for index in range(settings.get_nfilters())]


def _is_numeric(dtype: np.dtype[Any]) -> bool:
    return (dtype.kind in "fiub" and dtype.itemsize <= 8) or dtype == np.dtype("V2")


def _is_plain(h5py: Any, dataset: Any) -> bool:
    """Whether the bytes in the file are the numbers themselves, one after the other."""
    layout = dataset.id.get_create_plist().get_layout()
    stored_type = dataset.id.get_type()
    same_type = dataset.dtype.kind == "V" or stored_type == h5py.h5t.py_create(dataset.dtype)
    return bool(layout == h5py.h5d.CONTIGUOUS and stored_type.get_size() == dataset.dtype.itemsize and same_type)


def _load_through_library(image: Hdf5Image, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    with image.opened() as tree:
        stored = tree._follow(tree.root, name.lstrip("/"))
        tree._stored(stored, f"dataset {name!r}")
        if stored.shape != shape or stored.dtype != dtype:
            raise image.damaged(f"{name!r} has changed since the file was opened")
        values = np.asarray(stored[()])
    return values.astype(dtype.newbyteorder("="), copy=False)


def _widened(values: NDArray[Any]) -> NDArray[Any]:
    """bfloat16 (HDF5 knows it as two opaque bytes) as float32; everything else as it is."""
    if values.dtype.kind != "V":
        return values
    wide = np.ascontiguousarray(values).view("<u2").astype(np.uint32)
    return (wide << np.uint32(16)).view(np.float32).reshape(values.shape)


def _strings(value: Any) -> list[str]:
    """The strings of an attribute; Keras writes an empty list as an empty array of floats."""
    array = np.asarray(value, dtype=object) if isinstance(value, str | bytes | np.ndarray) else np.empty(0, object)
    texts = [item.decode("utf-8", "surrogateescape") if isinstance(item, bytes) else item for item in array.reshape(-1)]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("an attribute of names holds something else")
    return texts
