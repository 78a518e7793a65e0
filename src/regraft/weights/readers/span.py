"""A file as it was when its table of contents was read, and the byte ranges of its tensors.

A reader parses a file once and keeps a `Span` for each tensor; the values are read when they are asked for. A file
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

import numpy as np
from numpy.typing import NDArray

from regraft.errors import WeightsError

__all__ = ["SourceFile", "Span", "as_array", "companion", "open_source"]


@dataclass(frozen=True)
class SourceFile:
    """One regular file, with the identity that it had when it was opened first."""

    path: Path
    size: int
    identity: tuple[int, int, int]

    @contextmanager
    def mapped(self) -> Iterator[memoryview]:
        """The whole file as read-only memory, for parsing; pages come in as they are touched."""
        with self.path.open("rb") as stream:
            self._check(os.fstat(stream.fileno()))
            if not self.size:
                yield memoryview(b"")
                return
            # Not closed here: slices may still be alive in an error's frames. The last of them unmaps it.
            yield memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ))

    def read(self, offset: int, num_bytes: int) -> NDArray[np.uint8]:
        """A copy of one byte range.

        Raises:
            WeightsError: The range is not in the file, or the file is another one by now.
        """
        if offset < 0 or num_bytes < 0 or offset + num_bytes > self.size:
            raise WeightsError(
                f"{str(self.path)!r} has {self.size} bytes, and a tensor should lie at {offset}..{offset + num_bytes}.",
                "Every tensor has to lie inside its file: this one is cut short or damaged.",
                "Download or copy the file again.",
            )
        values = np.empty(num_bytes, dtype=np.uint8)
        with self.path.open("rb") as stream:
            self._check(os.fstat(stream.fileno()))
            stream.seek(offset)
            got = stream.readinto(values.data) if num_bytes else 0
        if got != num_bytes:
            raise _changed(self.path)
        return values

    def _check(self, status: os.stat_result) -> None:
        if _identity(status) != self.identity or status.st_size != self.size:
            raise _changed(self.path)


@dataclass(frozen=True)
class Span:
    """A byte range of a file that holds a plain little- or big-endian array."""

    source: SourceFile
    offset: int
    num_bytes: int

    def array(self, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
        """The values, in the machine's byte order."""
        return as_array(self.read(), dtype, shape)

    def read(self) -> NDArray[np.uint8]:
        """The bytes."""
        return self.source.read(self.offset, self.num_bytes)


def as_array(stored: NDArray[np.uint8], dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Stored bytes as an array of a stored dtype, in the machine's byte order."""
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
            "A weights file was expected, not a pipe, a device or a folder.",
            "Give the path of the file itself.",
        )
    return SourceFile(path, status.st_size, _identity(status))


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
                f"It was expected at {str(folder.joinpath(*parts))!r}.",
                "Put the file beside the first one, under its original name; the download has several parts.",
            ) from error
        if stat.S_ISLNK(status.st_mode):
            raise _forbidden(name, named_by, f"{part!r} is a link")
    if not stat.S_ISREG(status.st_mode):
        raise _forbidden(name, named_by, "it is no regular file")
    if status.st_nlink != 1:
        raise _forbidden(name, named_by, "it is a hard link (the file has a second name)")
    return SourceFile(path, status.st_size, _identity(status))


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
        "A part of a weights file has to be a regular file in the same folder, without links.",
        "Copy the real file there (`cp -L`) if you trust where it comes from.",
    )


def _changed(path: Path) -> WeightsError:
    return WeightsError(
        f"{str(path)!r} has changed since it was opened.",
        "A weights file has to stay as it is until its values are read.",
        "Read it again.",
    )


def _unreadable(path: Path, error: OSError) -> WeightsError:
    return WeightsError(
        f"{str(path)!r} cannot be read ({_reason(error)}).",
        "A readable weights file was expected.",
        "Check the path and its permissions.",
    )
