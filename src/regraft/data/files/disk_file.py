"""One state of a file on the disk, read by places: what was replaced meanwhile is noticed, nothing stays open."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["ChangedError", "DiskFile"]

_MOST = 1 << 26  # bytes that one call of the system is asked for


class ChangedError(Exception):
    """The file is another one than when it was looked at."""


@dataclass(frozen=True)
class DiskFile:
    """A regular file as it was when it was looked at.

    Each reading opens it anew: threads and forked processes share no position, and a thousand shards take no more
    open files than one.

    Attributes:
        path: Its absolute path.
        size: Its size in bytes.
        mtime: Its last change, in nanoseconds.
        ctime: The last change of its entry, in nanoseconds.
        inode: Its number in its file system.
    """

    path: str
    size: int
    mtime: int
    ctime: int
    inode: int

    @classmethod
    def at(cls, path: str) -> DiskFile:
        """Return the state of a file now.

        Raises:
            OSError: There is none.
        """
        return cls._of(path, os.stat(path))

    @property
    def name(self) -> str:
        """The name without the folder."""
        return os.path.basename(self.path)

    def read(self, offset: int, num_bytes: int) -> bytes:
        """Return bytes from a place on; fewer where the file ends.

        Raises:
            ChangedError: It is another file by now.
            OSError: It cannot be read.
        """
        descriptor = os.open(self.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        try:
            if DiskFile._of(self.path, os.fstat(descriptor)) != self:
                raise ChangedError
            os.lseek(descriptor, offset, os.SEEK_SET)
            parts: list[bytes] = []
            left = min(num_bytes, self.size - offset)
            while left > 0 and (part := os.read(descriptor, min(left, _MOST))):
                parts.append(part)
                left -= len(part)
            return parts[0] if len(parts) == 1 else b"".join(parts)
        finally:
            os.close(descriptor)

    def ahead(self, num_bytes: int) -> Callable[[int, int], bytes]:
        """Return what reads as `read` does, and takes so many bytes at once: many small headers lie close together."""
        start, block = 0, b""

        def read(offset: int, wanted: int) -> bytes:
            nonlocal start, block
            if not start <= offset <= offset + wanted <= start + len(block):
                start, block = offset, self.read(offset, max(wanted, num_bytes))
            return block[offset - start : offset - start + wanted]

        return read

    @staticmethod
    def _of(path: str, status: os.stat_result) -> DiskFile:
        return DiskFile(path, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
