"""Which images of a data set can be read: each is decoded once, and the answer is kept by content."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

from regraft.data.cache.cache import PixelCache
from regraft.data.cache.disk import DiskCache, DiskRows
from regraft.data.dataset import DataSet
from regraft.data.decode.decode import PixelProgram
from regraft.data.leaks import with_leaks
from regraft.errors import StorageError

__all__ = ["with_readable"]

_PROGRAM = PixelProgram((8, 8))  # every byte of a file is decoded, and no pixel of it is kept


def with_readable(data: DataSet, progress: Callable[[int, int], None] = lambda done, total: None) -> DataSet:
    """Return the data set with its unreadable images in the quarantine, and with what `find_leaks` says among its
    warnings.

    Unchanged files that were decoded before, by this or by a run, are not decoded again.

    Args:
        data: The rows.
        progress: Called with (images done, images in all).
    """
    total, before = sum(map(len, data.splits.values())), 0
    caches = {}
    for name, split in data.splits.items():

        def told(done: int, _: int, before: int = before) -> None:
            progress(before + done, total)

        caches[name] = PixelCache(
            split.paths, _PROGRAM, budget_bytes=0, disk=_known(split.paths), split=name, progress=told
        )
        before += len(split)
    checked = data.without(item for cache in caches.values() for item in cache.quarantined)
    return with_leaks(checked, {name: (cache.paths, cache.digests) for name, cache in caches.items()})


def _known(paths: Sequence[str]) -> DiskRows | None:
    """Return the disk cache's record of these files; None where it cannot be used."""
    with contextlib.suppress(StorageError):
        disk = DiskCache(_PROGRAM)
        disk.keeps = False  # what each file is, not its pixels
        return DiskRows(disk, paths)
    return None
