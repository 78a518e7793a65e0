"""A file as it was when its table of contents was read, and the byte ranges of its tensors.

A reader parses a file once and keeps a `ByteRange` for each tensor; the values are read when they are asked for. A file
that has been replaced or cut in between is an error then, never a crash or other values.
"""

from __future__ import annotations

import mmap
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
from numpy.typing import NDArray

from regraft.errors import WeightsError
from regraft.weights.limits import budget, is_hollow

__all__ = ["ByteRange", "SourceFile", "as_array", "companion", "open_source", "own_copy"]


# One map for all tensors of a file: each has a file descriptor, of which a process has few thousand.
_maps: WeakValueDictionary[tuple[Path, tuple[int, int, int]], mmap.mmap] = WeakValueDictionary()


@dataclass(frozen=True)
class SourceFile:
    """One regular file, or a part of it, with the identity that the file had when it was opened first."""

    path: Path
    size: int
    identity: tuple[int, int, int]
    start: int = 0
    file_size: int = -1  # of the file that this is a part of

    def part(self, start: int, size: int) -> SourceFile:
        """Return a part of this file, which is read as a file of its own (a file in an archive)."""
        if start < 0 or size < 0 or start + size > self.size:
            raise _outside(self, start, start + size, "a part of it")
        whole = self.size if self.file_size < 0 else self.file_size
        return SourceFile(self.path, size, self.identity, self.start + start, whole)

    @contextmanager
    def mapped(self) -> Iterator[memoryview]:
        """Return the whole file as read-only memory, for parsing; pages come in as they are touched."""
        with self.path.open("rb") as stream:
            self._check(os.fstat(stream.fileno()))
            if not self.size:
                yield memoryview(b"")
                return
            # Not closed here: slices may still be alive in an error's frames. The last of them unmaps it.
            mapped = _maps.get((self.path, self.identity))
            if mapped is None:
                mapped = _maps[self.path, self.identity] = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
            whole = memoryview(mapped)
            yield whole if self.file_size < 0 else whole[self.start : self.start + self.size]

    def read(self, offset: int, num_bytes: int) -> NDArray[np.uint8]:
        """Return a copy of one byte range.

        Raises:
            WeightsError: The range is not in the file, or the file is another one by now.
        """
        if offset < 0 or num_bytes < 0 or offset + num_bytes > self.size:
            raise _outside(self, offset, offset + num_bytes, "a tensor")
        values = np.empty(num_bytes, dtype=np.uint8)
        with self.path.open("rb") as stream:
            self._check(os.fstat(stream.fileno()))
            stream.seek(self.start + offset)
            got = stream.readinto(values.data) if num_bytes else 0
        if got != num_bytes:
            raise _changed(self.path)
        return values

    def _check(self, status: os.stat_result) -> None:
        if _identity(status) != self.identity or status.st_size != max(self.size, self.file_size):
            raise _changed(self.path)


@dataclass(frozen=True)
class ByteRange:
    """A byte range of a file that holds a plain little- or big-endian array."""

    source: SourceFile
    offset: int
    num_bytes: int

    def array(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        """Return the values, in the machine's byte order."""
        return as_array(self.read(), dtype, shape)

    def read(self) -> NDArray[np.uint8]:
        """Return the bytes."""
        return self.source.read(self.offset, self.num_bytes)


def as_array(stored: NDArray[np.uint8], dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Return stored bytes as an array of a stored dtype, in the machine's byte order."""
    return stored.view(dtype).reshape(shape).astype(dtype.newbyteorder("="), copy=False)


def open_source(path: Path) -> SourceFile:
    """Note the identity of a file that the user named.

    Raises:
        WeightsError: It is missing, or no regular file.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise _unreadable(path, error) from error
    if not stat.S_ISREG(status.st_mode):
        raise WeightsError(
            f"{str(path)!r} is not a regular file.",
            "a weights file, not a pipe, a device or a folder",
            "give the path of the file itself",
        )
    return _counted(SourceFile(path, status.st_size, _identity(status)))


def own_copy(path: Path) -> SourceFile:
    """Return a file that regraft itself made of another one: the other one's bytes are on the account, not these."""
    status = path.stat()
    return SourceFile(path, status.st_size, _identity(status))


def _counted(source: SourceFile) -> SourceFile:
    """Return the file, with its bytes on the account of what is being read.

    Raises:
        WeightsError: It is nearly all holes.
    """
    budget().opened(source.identity, source.size)
    try:
        with source.path.open("rb") as stream:
            hollow = is_hollow(stream, source.size)
    except OSError as error:
        raise _unreadable(source.path, error) from error
    if hollow:
        raise WeightsError(
            f"{str(source.path)!r} is refused: nearly all of its {source.size:,} bytes are holes (a sparse file).",
            "a weights file stores its values on disk",
            "if a download or a copy was broken off, start it again",
        )
    return source


def companion(folder: Path, name: str, *, named_by: str) -> SourceFile:
    """Open a file that another file names: inside that one's folder, and nothing else.

    Args:
        folder: The folder of the file that names it.
        name: The relative path as written there, with `/`.
        named_by: Who names it, for the error text.

    Raises:
        WeightsError: The name leaves the folder, or leads over a link, or to anything but a regular file that has
            one name only; or there is no such file.
    """
    parts = _relative_parts(name)
    if parts is None:
        raise _forbidden(name, named_by, "it is not a plain relative path inside the folder")
    path = folder
    for part in parts:
        path = path / part
        try:
            status = path.lstat()
        except OSError as error:
            raise WeightsError(
                f"{named_by} needs the file {name!r}, and it cannot be opened ({_reason(error)}).",
                f"the file at {str(folder.joinpath(*parts))!r}",
                "put the file next to the first one, under its original name: the download has several parts",
            ) from error
        if stat.S_ISLNK(status.st_mode):
            raise _forbidden(name, named_by, f"{part!r} is a link")
    if not stat.S_ISREG(status.st_mode):
        raise _forbidden(name, named_by, "it is not a regular file")
    if status.st_nlink != 1:
        raise _forbidden(name, named_by, "it is a hard link (the file has another name)")
    return _counted(SourceFile(path, status.st_size, _identity(status)))


def _relative_parts(name: str) -> tuple[str, ...] | None:
    if not name or len(name) > 1024 or "\\" in name or ":" in name or not name.isprintable():
        return None
    parts = tuple(name.split("/"))
    if any(part in ("", ".", "..") for part in parts) or PurePosixPath(name).is_absolute():
        return None
    return parts


def _identity(status: os.stat_result) -> tuple[int, int, int]:
    return (status.st_dev, status.st_ino, status.st_mtime_ns)


def _reason(error: OSError) -> str:
    return (error.strerror or type(error).__name__).lower()


def _forbidden(name: str, named_by: str, why: str) -> WeightsError:
    return WeightsError(
        f"{named_by} refers to {name!r}, and that is refused: {why}.",
        "a part of a weights file has to be a regular file in the same folder, without links",
        "copy the real file there (`cp -L`) if you trust where it comes from",
    )


def _outside(source: SourceFile, start: int, end: int, what: str) -> WeightsError:
    return WeightsError(
        f"{str(source.path)!r} has {source.size} bytes, but {what} should be at {start}..{end}.",
        "every tensor has to lie inside its file: this one is truncated or damaged",
        "download or copy the file again",
    )


def _changed(path: Path) -> WeightsError:
    return WeightsError(
        f"{str(path)!r} has changed since it was opened.",
        "a weights file must not change until its values are read",
        "read it again",
    )


def _unreadable(path: Path, error: OSError) -> WeightsError:
    return WeightsError(
        f"{str(path)!r} cannot be read ({_reason(error)}).",
        "a readable weights file",
        "check the path and its permissions",
    )
