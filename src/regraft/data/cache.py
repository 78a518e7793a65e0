"""Decode every file once, in parallel, into one uint8 array; or find that it does not fit and stream instead.

Either way every file is decoded before training starts, so that each unreadable one is known, listed and out of the
rows before the first batch, and rows keep the same numbers for the whole run.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt

from regraft.data.check import require_usable
from regraft.data.dataset import DataSet, Quarantined
from regraft.data.decode import PixelProgram, decode, decode_or_reason, read_file

__all__ = ["PixelCache", "decode_all", "memory_budget", "num_cpus"]

Progress = Callable[[int, int], None]
Pixels = npt.NDArray[np.uint8]

_CHUNK = 16  # files for one task: enough to hide the cost of a task, few enough for a smooth progress bar


class PixelCache:
    """The pixels of the readable ones among `paths`; unreadable files are listed and get no row.

    Args:
        paths: Image files.
        program: What to do with their pixels.
        budget_bytes: The most RAM to fill; None takes `memory_budget()`. A larger set streams: its files are
            checked now and decoded again for each batch.
        threads: Decoding threads; None takes one for each processor. The result does not depend on it.
        split: The name that quarantined files are listed under.
        progress: Called with (files done, files in all) from the calling thread.

    Attributes:
        paths: The readable files, one for each row.
        images: uint8 of shape (rows, height, width, 3), red first, or None when streaming.
        good: The positions of the rows in the `paths` that were given, as int64.
        quarantined: The other files, each with its reason.
        digests: SHA-256 of each row's file, uint8 of shape (rows, 32).
    """

    def __init__(
        self,
        paths: Sequence[str],
        program: PixelProgram,
        *,
        budget_bytes: int | None = None,
        threads: int | None = None,
        split: str = "",
        progress: Progress | None = None,
    ) -> None:
        budget = memory_budget() if budget_bytes is None else budget_bytes
        shape = (len(paths), *program.size, 3)
        self.program = program
        self.num_bytes = int(np.prod(shape, dtype=np.int64))
        images = np.zeros(shape, dtype=np.uint8) if self.num_bytes <= budget else None
        digests = np.zeros((len(paths), 32), dtype=np.uint8)
        reasons = _decode_files(paths, program, images, digests, threads or num_cpus(), progress)
        good = np.array([row for row in range(len(paths)) if row not in reasons], dtype=np.int64)
        self.good = good
        self.paths = [paths[row] for row in good]
        self.quarantined = tuple(Quarantined(paths[row], reasons[row], split) for row in sorted(reasons))
        self.images = None if images is None else _close_gaps(images, good)
        self.digests = _close_gaps(digests, good)

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def streams(self) -> bool:
        """Whether the pixels did not fit and are decoded again for each batch."""
        return self.images is None

    def row(self, row: int) -> Pixels:
        """The pixels of one row, of shape (height, width, 3).

        Raises:
            DecodeError: When streaming, if the file has become unreadable since it was checked.
        """
        return decode(self.paths[row], self.program) if self.images is None else self.images[row]

    def fingerprint(self) -> str:
        """A hash of the contents of all rows' files, in order, and of the program, as 64 hex digits."""
        digest = hashlib.sha256(repr(sorted(self.program.to_dict().items())).encode())
        digest.update(self.digests.tobytes())
        return digest.hexdigest()


def decode_all(
    data: DataSet,
    program: PixelProgram,
    *,
    budget_bytes: int | None = None,
    threads: int | None = None,
    progress: Progress | None = None,
) -> tuple[DataSet, dict[str, PixelCache]]:
    """Decode every split of a data set, and move its unreadable files to the quarantine.

    Row n of a cache is row n of the split with the same name in the data set that comes back. The splits share the
    budget, the first ones first, and one count of progress.

    Raises:
        DataError: If a split, or a class to train on, has no readable image left.
    """
    budget = memory_budget() if budget_bytes is None else budget_bytes
    total = sum(len(split) for split in data.splits.values())
    done = 0
    caches: dict[str, PixelCache] = {}
    for name, split in data.splits.items():
        caches[name] = PixelCache(
            split.paths,
            program,
            budget_bytes=budget,
            threads=threads,
            split=name,
            progress=_shifted(progress, done, total),
        )
        done += len(split)
        budget -= 0 if caches[name].streams else caches[name].num_bytes
    checked = data.without(item for cache in caches.values() for item in cache.quarantined)
    require_usable(checked)
    return checked, caches


def memory_budget() -> int:
    """Half of the memory that this process may still take, in bytes: the machine's or its container's, the less."""
    import psutil

    free = int(psutil.virtual_memory().available)
    for limit, used in _CGROUPS:
        with contextlib.suppress(OSError, ValueError):  # no such file, or "max"
            free = min(free, int(Path(limit).read_text()) - int(Path(used).read_text()))
    return max(0, free) // 2


_CGROUPS = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)


def num_cpus() -> int:
    """The processors that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _decode_files(
    paths: Sequence[str],
    program: PixelProgram,
    images: Pixels | None,
    digests: Pixels,
    threads: int,
    progress: Progress | None,
) -> dict[int, str]:
    """Fill the arrays row by row; returns the reason for each row that has no pixels."""

    def work(rows: range) -> dict[int, str]:
        reasons = {}
        for row in rows:
            data = read_file(paths[row])
            pixels = data if isinstance(data, str) else decode_or_reason(data, program)
            if isinstance(pixels, str):
                reasons[row] = pixels
            elif images is not None:
                images[row] = pixels
            if isinstance(data, bytes):
                digests[row] = np.frombuffer(hashlib.sha256(data).digest(), dtype=np.uint8)
        return reasons

    chunks = [range(start, min(start + _CHUNK, len(paths))) for start in range(0, len(paths), _CHUNK)]
    reasons: dict[int, str] = {}
    for rows, found in _in_order(work, chunks, threads):
        reasons |= found
        if progress is not None:
            progress(rows.stop, len(paths))
    return reasons


def _in_order(
    work: Callable[[range], dict[int, str]], chunks: list[range], threads: int
) -> Iterator[tuple[range, dict[int, str]]]:
    """Run the chunks on threads, a few ahead of the one that is waited for; nothing is left running after an error."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix="regraft-decode")
    waiting: deque[tuple[range, Future[dict[int, str]]]] = deque()
    coming = iter(chunks)
    try:
        waiting.extend((rows, pool.submit(work, rows)) for rows in islice(coming, 4 * threads))
        while waiting:
            rows, future = waiting.popleft()
            found = future.result()
            waiting.extend((rows, pool.submit(work, rows)) for rows in islice(coming, 1))
            yield rows, found
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _close_gaps(rows: Pixels, good: npt.NDArray[np.int64]) -> Pixels:
    """The good rows at the front, moved in place: the array may fill most of the memory."""
    for target in range(_first_gap(good), len(good)):
        rows[target] = rows[good[target]]
    return rows[: len(good)]


def _first_gap(good: npt.NDArray[np.int64]) -> int:
    moved = np.flatnonzero(good != np.arange(len(good)))
    return int(moved[0]) if len(moved) else len(good)


def _shifted(progress: Progress | None, done: int, total: int) -> Progress | None:
    return None if progress is None else lambda now, _: progress(done + now, total)
