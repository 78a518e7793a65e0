"""Errors of a disk that holds caches."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from regraft import commit
from regraft.errors import StorageError

__all__ = ["disk_errors"]


@contextlib.contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Turn every error of the operating system into StorageError: another process may even remove a cache in use."""
    try:
        with commit.storage_errors(path):
            yield
    except OSError as error:
        raise StorageError(
            f"{str(path)!r} cannot be used: {error.strerror or error}.",
            "a folder that may be read and written",
            "set REGRAFT_CACHE to such a folder",
        ) from error
