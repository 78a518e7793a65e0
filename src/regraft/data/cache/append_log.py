"""A file of fixed-size records that several processes append to, and that a kill at any moment leaves whole.

A record carries a checksum of itself. One that was cut off, changed or written by chance does not exist, and a cut-off
end is removed by whoever appends next.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from regraft.data.random import bits
from regraft.errors import StorageError
from regraft.machine.disk import disk_errors

__all__ = ["Ledger", "Records", "open_private", "write_all"]

Records = npt.NDArray[np.void]  # structured: the ledger's fields and "seal"

_SEAL = 0x7365616C
_LOCK_SECONDS = 10.0  # an append takes milliseconds; who waits longer meets a process that was stopped


class Ledger:
    """Records of the given fields in the file `path`; their sizes add up to a multiple of 8 bytes.

    Args:
        path: The file; it need not exist.
        fields: Names and numpy types, as `np.dtype` takes them.
    """

    def __init__(self, path: Path, fields: Sequence[tuple[str, str]]) -> None:
        self.path = path
        self.dtype = np.dtype([*fields, ("seal", "<u8")])
        self._position = 0

    def fresh(self) -> Records:
        """Return the whole records that were appended since the last call, by any process.

        Raises:
            StorageError: The file cannot be read.
        """
        with disk_errors(self.path):
            try:
                with self.path.open("rb") as file:
                    file.seek(self._position)
                    data = file.read()
            except FileNotFoundError:
                data = b""
        num = len(data) // self.dtype.itemsize
        self._position += num * self.dtype.itemsize
        records: Records = np.frombuffer(data, dtype=self.dtype, count=num)
        whole: Records = records[records["seal"] == _seals(records)]
        return whole

    def records(self, **columns: Any) -> Records:
        """Return sealed records of these columns, each an array of one row for each record."""
        num = len(next(iter(columns.values())))
        made: Records = np.zeros(num, dtype=self.dtype)
        for name, values in columns.items():
            made[name] = values
        made["seal"] = _seals(made)
        return made

    def append(self, records: Records) -> None:
        """Append sealed records; only while `locked`.

        Raises:
            StorageError: The disk is full, read-only or damaged; nothing counts as appended.
        """
        with disk_errors(self.path), open_private(self.path) as file:
            end = file.seek(0, os.SEEK_END)
            whole = end - end % self.dtype.itemsize
            file.truncate(whole)
            file.seek(whole)
            try:
                write_all(file, records.tobytes())
            except OSError:
                file.truncate(whole)
                raise

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep every other process from appending.

        Raises:
            StorageError: The file system has no locks, or another process does not let go.
        """
        path = self.path.with_name(self.path.name + ".lock")
        with disk_errors(path):
            lock = open_private(path)
        with lock:
            _wait_for(lock, path)
            yield


def open_private(path: Path) -> BinaryIO:
    """Return a file to read and write without a buffer, made for this user alone where it does not exist."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOFOLLOW", 0)
    return os.fdopen(os.open(path, flags, 0o600), "r+b", buffering=0)


def write_all(file: BinaryIO, data: bytes | memoryview) -> None:
    """Write every byte: a nearly full disk takes a part first and fails at the next."""
    rest = memoryview(data).cast("B")
    while len(rest):
        rest = rest[file.write(rest) :]


def _wait_for(lock: BinaryIO, path: Path) -> None:
    until = time.monotonic() + _LOCK_SECONDS
    while not _try_lock(lock):
        if time.monotonic() > until:
            raise StorageError(
                f"Another process has held {str(path)!r} for {_LOCK_SECONDS:.0f} seconds.",
                "the file is held for milliseconds",
                "end the process that hangs",
            )
        time.sleep(0.002)


def _try_lock(lock: BinaryIO) -> bool:
    """Return whether this process holds the lock now; closing the file, or dying, lets go."""
    try:
        import fcntl
    except ImportError:
        return _try_lock_windows(lock)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise StorageError(
            f"{lock.name!r} cannot be locked ({error.strerror}).",
            "a cache folder lies on a file system with locks",
            "set REGRAFT_CACHE to a folder on a local disk",
        ) from error
    return True


def _try_lock_windows(lock: BinaryIO) -> bool:
    import msvcrt

    try:
        msvcrt.locking(lock.fileno(), msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
    except OSError:
        return False
    return True


def _seals(records: Records) -> npt.NDArray[np.uint64]:
    """Return a checksum of each record's other fields."""
    words = np.ascontiguousarray(records).view(np.uint64).reshape(len(records), records.dtype.itemsize // 8)
    return bits(_SEAL, *(words[:, column] for column in range(words.shape[1] - 1)), num=1)[:, 0]
