"""Decode every file once, in parallel: into one array in memory, into a store on the disk, or only to look at it.

Either way every file is decoded before training starts, so that each unreadable one is known, listed and out of the
rows before the first batch, and rows keep the same numbers for the whole run. What a store on the disk knows from an
earlier run is neither read nor decoded again.
"""

from __future__ import annotations

import copy
import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from regraft.data.cache.disk import DiskRows, KeptRows, Part
from regraft.data.cache.row_program import RowProgram
from regraft.data.cache.store import checksum
from regraft.data.dataset import Quarantined
from regraft.data.files import access
from regraft.data.paths import Paths
from regraft.errors import DecodeError, StorageError
from regraft.machine.budget import memory_budget, num_cpus
from regraft.machine.prefetch import in_order
from regraft.machine.processes import ALONE, Team, local_rank, num_local_processes

__all__ = ["CACHES", "CacheMode", "PixelCache", "num_bytes_of"]

Progress = Callable[[int, int], None]
Indices = npt.NDArray[np.int64]
Pixels = npt.NDArray[np.uint8]
CacheMode = Literal["auto", "off", "ram", "disk"]
CACHES: tuple[CacheMode, ...] = ("auto", "off", "ram", "disk")

_CHUNK = 16  # files for one task: enough to hide the cost of a task, few enough for a smooth progress bar
_AHEAD = 32  # files that are fetched before their task begins
_CHUNK_BYTES = 4_000_000  # of pixels that wait to be written to the disk


class PixelCache:
    """The pixels of the readable ones among `paths`; unreadable files are listed and get no row.

    Args:
        paths: Image files, or masks.
        program: What to do with their pixels.
        budget_bytes: The most RAM to fill; None takes `memory_budget()`. A larger set streams: its files are
            checked now and decoded again for each batch.
        disk: What the disk knows of these files, and where the rest goes; then no RAM is filled.
        threads: Decoding threads; None takes one for each processor. The result does not depend on it.
        split: The name that quarantined files are listed under.
        progress: Called with (files done, files in all) from the calling thread.
        team: The processes that share the files; each reads a part, and all of them know the rest afterwards. Those of
            one machine share its disk. All are given the same files and the same budget, and a disk or none.

    Attributes:
        paths: The readable files, one for each row.
        program: What the rows are the result of.
        images: uint8 of shape (rows, height, width, channels), red first (of masks: (rows, height, width)), as they are
            after the program's first resize, in memory; None when they are on the disk or streaming.
        kept: The rows that are on the disk, or None.
        masks: For segmentation, the rows of their masks, uint8 (height, width) each: row for row the same.
        good: The positions of the rows in the `paths` that were given, as int64.
        quarantined: The other files, each with its reason.
        digests: SHA-256 of each row's file, uint8 of shape (rows, 32).
    """

    def __init__(
        self,
        paths: Sequence[str],
        program: RowProgram,
        *,
        budget_bytes: int | None = None,
        disk: DiskRows | None = None,
        threads: int | None = None,
        split: str = "",
        progress: Progress | None = None,
        team: Team = ALONE,
    ) -> None:
        shape = (len(paths), *program.first.row_shape)
        self.program = program
        self.num_bytes = num_bytes_of(program, len(paths))
        images = None
        if disk is None and self.num_bytes <= (memory_budget() if budget_bytes is None else budget_bytes):
            images = np.zeros(shape, dtype=np.uint8)
        digests = np.zeros((len(paths), 32), dtype=np.uint8) if disk is None else disk.digests
        share = _share(len(paths), team, on_disk=disk is not None)
        target = _Target(images, digests, disk)
        reasons = _decode_files(paths, program.first, target, share, threads or num_cpus(), progress)
        if team.num_processes > 1:
            reasons = _exchanged(target, reasons, share, team)
        good = np.setdiff1d(np.arange(len(paths)), np.array(list(reasons), dtype=np.int64), assume_unique=True)
        self.good = good
        self.paths: Sequence[str] = Paths.of(paths).take(good)
        self.quarantined = tuple(Quarantined(paths[row], reasons[row], split) for row in sorted(reasons))
        self.images = None if images is None else _close_gaps(images, good)
        self.digests = _close_gaps(digests, good)
        self.masks: PixelCache | None = None
        self.kept = None if disk is None else KeptRows(disk.disk.store, self.digests, self.paths)

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def streams(self) -> bool:
        """Whether some rows are neither in memory nor on the disk and are decoded again for each batch."""
        return self.images is None and (self.kept is None or self.kept.num_kept < len(self))

    @property
    def needs_threads(self) -> bool:
        """Whether making a batch is more than copying bytes in memory."""
        return self.images is None or self.program.stored is not None

    def sized(self, size: tuple[int, int]) -> PixelCache:
        """Return the same rows at another final size: a view, which shares everything else.

        Raises:
            ValueError: The program has no `stored` size, from which all others are made.
        """
        if size == self.program.size:
            return self
        if self.program.stored is None:
            raise ValueError(f"pixels of the size {self.program.size} cannot become {size}: nothing larger is stored")
        other = copy.copy(self)
        other.program = self.program.sized(size)
        other.masks = None if self.masks is None else self.masks.sized(size)
        return other

    def keep(self, rows: Indices) -> None:
        """Drop all rows but these, which are given in ascending order."""
        if len(rows) == len(self):
            return
        self.good = self.good[rows]
        self.paths = Paths.of(self.paths).take(rows)
        self.images = None if self.images is None else _close_gaps(self.images, rows)
        self.digests = _close_gaps(self.digests, rows)
        self.kept = None if self.kept is None else self.kept.of(self.digests, self.paths)

    def row(self, row: int) -> Pixels:
        """Return the pixels of one row, of shape (height, width, channels).

        Raises:
            DecodeError: When streaming, if the file has become unreadable since it was checked.
        """
        pixels = np.empty(self.program.row_shape, dtype=np.uint8)
        self.fill(np.array([row], dtype=np.int64), pixels[None])
        return pixels

    def fill(self, rows: Indices, out: Pixels) -> None:
        """Write the pixels of these rows into `out`, uint8 (len(rows), height, width, channels), from any thread.

        Raises:
            DecodeError: When streaming, if a file has become unreadable since it was checked.
        """
        first = self.program.first
        resizes = self.program.stored is not None
        pixels = np.empty((len(rows), *first.row_shape), dtype=np.uint8) if resizes else out
        left = range(len(rows)) if self.kept is None else self.kept.fill(rows, pixels).tolist()
        if self.images is not None:
            # The row numbers are checked; the mode "raise" would copy the pixels twice.
            np.take(self.images, rows, axis=0, out=pixels, mode="clip")
        else:
            access.fetch_ahead(self.paths[int(rows[place])] for place in left)
            for place in left:
                pixels[place] = _required(self.paths[int(rows[place])], first)
        for place in range(len(rows)) if resizes else ():
            out[place] = self.program.finish(pixels[place])

    def fingerprint(self) -> str:
        """Return a hash of the contents of all rows' files, in order, and of the program, as 64 hex digits."""
        digest = hashlib.sha256(repr(sorted(self.program.to_dict().items())).encode())
        digest.update(self.digests.tobytes())
        return digest.hexdigest()


def num_bytes_of(program: RowProgram, rows: int) -> int:
    return rows * math.prod(program.first.row_shape)


def _required(path: str, program: RowProgram) -> Pixels:
    """Return the row of a file that could be read before."""
    data = program.fetch(path)
    pixels = data if isinstance(data, str) else program.read(data)
    if not isinstance(pixels, str):
        return pixels
    raise DecodeError(
        f"{path} {pixels}.",
        "the file could be read when the run began",
        "put the file back, and resume the run",
    )


class _Target(NamedTuple):
    """Where what becomes of files goes."""

    images: Pixels | None
    digests: Pixels
    disk: DiskRows | None


def _share(num: int, team: Team, *, on_disk: bool) -> tuple[int, int]:
    """Return the first of the rows that this process reads, and their end."""
    if team.num_processes == 1:
        return 0, num
    number, of = (local_rank(), num_local_processes()) if on_disk else (team.rank, team.num_processes)
    return num * number // of, num * (number + 1) // of


def _exchanged(target: _Target, reasons: dict[int, str], share: tuple[int, int], team: Team) -> dict[int, str]:
    """Give every process what the others have found out; returns the reasons of all rows."""
    images, digests, disk = target
    told = team.gather((share, reasons))
    team.exchange([digests, *([] if images is None else [images])], [bounds for bounds, _ in told])
    if disk is not None:
        try:
            disk.disk.store.refresh()
        except StorageError as error:
            disk.disk.stop_keeping(error)
    return {row: reason for _, found in told for row, reason in found.items()}


def _chunks(rows: Indices, size: int, paths: Sequence[str]) -> Iterator[Indices]:
    """Yield rows by so many; the files of those that follow are on their way where they are far."""
    begun = 0
    for start in range(0, len(rows), size):
        until = min(start + size + _AHEAD, len(rows))
        access.fetch_ahead(paths[row] for row in rows[begun:until].tolist())
        begun = until
        yield rows[start : start + size]


def _decode_files(
    paths: Sequence[str],
    program: RowProgram,
    target: _Target,
    share: tuple[int, int],
    threads: int,
    progress: Progress | None,
) -> dict[int, str]:
    """Fill the arrays row by row, or the disk; returns the reason for each row that has no pixels."""
    images, digests, disk = target

    def work(rows: Indices) -> Part:
        part = Part(rows, np.zeros((len(rows), 32), dtype=np.uint8))
        for place, row in enumerate(rows.tolist()):
            data = program.fetch(paths[row])
            if isinstance(data, str):
                part.reasons[row] = data
                continue
            digest = part.digests[place]
            digest[:] = np.frombuffer(hashlib.sha256(data).digest(), dtype=np.uint8)
            if disk is not None and disk.is_kept(digest):
                continue
            pixels = program.read(data)
            if isinstance(pixels, str):
                part.reasons[row] = pixels
            elif images is not None:
                images[row] = pixels
            elif disk is not None and disk.disk.keeps:
                part.pixels[row] = (pixels, checksum(digest, pixels))
        part.unchanged = [] if disk is None else [disk.is_unchanged(row) for row in rows.tolist()]
        return part

    todo = np.arange(len(paths)) if disk is None else disk.missing
    todo = todo[(todo >= share[0]) & (todo < share[1])]
    reasons = {} if disk is None else dict(disk.reasons)
    done, size = share[1] - share[0] - len(todo), max(1, min(_CHUNK, _CHUNK_BYTES // num_bytes_of(program, 1)))
    for part in in_order(work, _chunks(todo, size, paths), threads):
        digests[part.rows] = part.digests
        reasons |= part.reasons
        if disk is not None:
            disk.keep(part)
        done += len(part.rows)
        if progress is not None:
            progress(done * len(paths) // (share[1] - share[0]), len(paths))
    if progress is not None and not len(todo) and len(paths):
        progress(len(paths), len(paths))
    return reasons


def _close_gaps(rows: Pixels, good: Indices) -> Pixels:
    """Return the good rows at the front, moved in place: the array may fill most of the memory."""
    for target in range(_first_gap(good), len(good)):
        rows[target] = rows[good[target]]
    return rows[: len(good)]


def _first_gap(good: Indices) -> int:
    moved = np.flatnonzero(good != np.arange(len(good)))
    return int(moved[0]) if len(moved) else len(good)
