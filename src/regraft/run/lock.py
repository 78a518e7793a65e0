"""The lock that keeps two processes out of one run folder."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from regraft import commit
from regraft.errors import StorageError

__all__ = ["LOCK", "is_held", "locked"]

LOCK = ".lock"
_NO_LINK = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


def is_held(folder: Path) -> bool:
    """Say whether a process writes to a folder now, without taking the lock for longer than the question."""
    try:
        descriptor = os.open(folder / LOCK, os.O_RDONLY | _NO_LINK)
    except OSError:
        return False
    try:
        _lock(descriptor, folder)
    except StorageError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold a folder for this process; a lock of a process that is gone is taken over.

    Raises:
        StorageError: Another process writes to it.
    """
    lock = folder / LOCK
    with commit.storage_errors(lock):
        descriptor = _open_locked(lock, folder)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # while it is held, so that nobody else's is removed
            lock.unlink()
        os.close(descriptor)


def _open_locked(lock: Path, path: Path) -> int:
    """Open and lock the file that bears the name now: the one opened may have been removed by who held it."""
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT | _NO_LINK, 0o666)
        try:
            _lock(descriptor, path)
            if os.fstat(descriptor).st_nlink > 1:
                lock.unlink()  # the same file has a name elsewhere, which nothing is written to
            elif _is_same_file(descriptor, lock):
                os.truncate(descriptor, 0)
                os.write(descriptor, f"{os.getpid()}\n".encode())
                return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _is_same_file(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


def _lock(descriptor: int, path: Path) -> None:
    try:
        import fcntl
    except ImportError:  # Windows: the open handle itself is what keeps a second writer from deleting the file
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise StorageError(
            f"The run {str(path)!r} is being written by another process.",
            "one process writes one run folder",
            "wait until it ends, or give another --out",
        ) from error
