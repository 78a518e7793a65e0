"""The disk's share in decoding: which files it knows, which rows it holds, and what it takes in.

Nothing here ends a run: where the disk is full, read-only or damaged, rows are decoded again for each batch.
"""

from __future__ import annotations

import contextlib
import mmap
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from regraft import commit
from regraft.data.cache.hashes import FileHashes, stamp, stamps
from regraft.data.cache.room import make_room
from regraft.data.cache.row_index import READABLE, UNKNOWN
from regraft.data.cache.row_program import RowProgram
from regraft.data.cache.store import PixelStore, checksum
from regraft.data.decode.image_file import NO_MEMORY
from regraft.errors import StorageError
from regraft.machine.cache_folder import cache_folder, private_folder

__all__ = ["DiskCache", "DiskRows", "KeptRows", "Part"]

Indices = npt.NDArray[np.int64]
Pixels = npt.NDArray[np.uint8]


@dataclass
class Part:
    """What was found out about a few rows.

    Attributes:
        rows: Their numbers.
        digests: SHA-256 of their files, uint8 (len(rows), 32); zero where a file could not be read.
        reasons: Why rows have no pixels, by row.
        pixels: The pixels to keep on the disk and their checksums, by row.
        unchanged: Which files are still those that were stamped before.
    """

    rows: Indices
    digests: Pixels
    reasons: dict[int, str] = field(default_factory=dict)
    pixels: dict[int, tuple[Pixels, bytes]] = field(default_factory=dict)
    unchanged: list[bool] = field(default_factory=list)


class DiskCache:
    """The rows of one pixel program on the disk, and the hashes of all files that were ever read.

    Args:
        program: Its rows are those after the first resize.
        folder: The folder of regraft's caches; None takes `cache_folder()`.

    Attributes:
        keeps: Whether rows are added; otherwise it is only noted what each file is.
        failure: Why adding ended early, in words; None as long as it did not.
        num_decoded: How many rows had to be decoded.

    Raises:
        StorageError: The folder cannot be used.
    """

    def __init__(self, program: RowProgram, folder: Path | None = None) -> None:
        self.root = private_folder((folder or cache_folder()) / "pixels")
        commit.sweep(self.root)
        self.store = PixelStore(self.root, program)
        self.hashes = FileHashes(self.root / "files.hashes")
        self.keeps = True
        self.failure: str | None = None
        self.num_decoded = 0
        self.store.touch()

    def make_room(self, num_rows: int, *, share: float) -> bool:
        """Return whether this many more rows fit on the disk, within this share of it for the rows of all programs."""
        return make_room(self.root, self.store.folder, num_rows * self.store.row_bytes, share=share)

    def stop_keeping(self, error: StorageError) -> None:
        """Stop writing to the disk: the run continues without."""
        self.keeps, self.failure = False, error.what


class DiskRows:
    """What a disk cache knows about a list of files, and its way to learn the rest. No file is read for it.

    Attributes:
        digests: SHA-256 of the files, uint8 (N, 32), as far as they are known.
        reasons: Why files hold no image, as far as it is known, by row.
    """

    def __init__(self, disk: DiskCache, paths: Sequence[str]) -> None:
        self.disk, self.paths = disk, paths
        self._stamps = stamps(paths)
        self.digests, known = disk.hashes.find(self._stamps)
        self._slots = np.full(len(paths), UNKNOWN, dtype=np.int64)
        self._slots[known] = disk.store.find(self.digests[known])[0]
        self.reasons: dict[int, str] = {}
        for row in np.flatnonzero(known).tolist() if disk.store.reasons else ():
            reason = disk.store.reasons.get(self.digests[row].tobytes())
            if reason is not None:
                self.reasons[row] = reason

    @property
    def missing(self) -> Indices:
        """The rows whose files must be read: unknown ones, and those without pixels where these are to be kept."""
        wanted = self._slots < (0 if self.disk.keeps else READABLE)
        wanted[list(self.reasons)] = False
        return np.flatnonzero(wanted)

    @property
    def num_kept(self) -> int:
        """How many rows lay on the disk at first."""
        return int((self._slots >= 0).sum())

    def is_kept(self, digest: Pixels) -> bool:
        """Return whether a row of these contents is on the disk already, from a file of another name."""
        return bool(self.disk.store.find(digest[None])[0][0] >= 0)

    def is_unchanged(self, row: int) -> bool:
        """Return whether the file of a row is still the one that was found at first."""
        return bool(np.array(stamp(self.paths[row]), dtype=self._stamps.dtype) == self._stamps[row])

    def keep(self, part: Part) -> None:
        """Add decoded rows; the first failure of the disk ends that for good."""
        try:
            if self.disk.keeps and part.pixels:
                kept = [place for place, row in enumerate(part.rows.tolist()) if row in part.pixels]
                pixels, checks = zip(*part.pixels.values(), strict=True)
                checks_array = np.frombuffer(b"".join(checks), dtype=np.uint8).reshape(-1, 16)
                self.disk.store.add(part.digests[kept], pixels, checks_array)
                self.disk.num_decoded += len(kept)
            self._note(part)
        except StorageError as error:
            self.disk.stop_keeping(error)

    def _note(self, part: Part) -> None:
        rows = part.rows.tolist()
        self.disk.store.add_readable(part.digests[[row not in part.reasons for row in rows]])
        read = part.digests.any(1)
        for place in np.flatnonzero(read).tolist():
            reason = part.reasons.get(rows[place], NO_MEMORY)
            if reason != NO_MEMORY:
                self.disk.store.add_reason(part.digests[place].tobytes(), reason)
        sure = read & np.array(part.unchanged, dtype=bool)
        self.disk.hashes.remember(self._stamps[part.rows[sure]], part.digests[sure])


class KeptRows:
    """Rows on the disk, mapped into memory; each is compared with its checksum when it is used for the first time.

    Args:
        store: Where they lie.
        digests: SHA-256 of each row's file, uint8 (N, 32).
        paths: The files, for rows that turn out to be damaged.

    Attributes:
        num_kept: How many of the rows are there.
    """

    def __init__(self, store: PixelStore, digests: Pixels, paths: Sequence[str]) -> None:
        self._store, self._digests, self._paths = store, digests, paths
        self._slots, self._checks = store.find(digests)
        self._map = store.map_rows()
        self._rows: Pixels | None = None
        if self._map is not None:
            num = len(self._map) // store.row_bytes
            rows = np.frombuffer(self._map, dtype=np.uint8, count=num * store.row_bytes)
            self._rows = rows.reshape(num, *store.program.row_shape)
        self._checked = np.zeros(len(digests), dtype=bool)
        self.num_kept = int((self._slots >= 0).sum())

    def of(self, digests: Pixels, paths: Sequence[str]) -> KeptRows:
        """Return the cache of other rows of the same store."""
        return KeptRows(self._store, digests, paths)

    def fill(self, rows: Indices, out: Pixels) -> Indices:
        """Write the rows that are there into `out`; returns the places in `rows` of the others."""
        slots = self._slots[rows]
        if self._rows is not None:
            np.take(self._rows, slots, axis=0, out=out, mode="clip")  # what is not there is replaced by the caller
            self._let_go()
        for place in np.flatnonzero((slots >= 0) & ~self._checked[rows]).tolist():
            self._check(int(rows[place]), out[place])
        return np.flatnonzero(self._slots[rows] < 0)

    def _let_go(self) -> None:
        """Unmap the pages that were read: they stay in the system's cache, and the process does not seem to grow."""
        if self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)

    def _check(self, row: int, pixels: Pixels) -> None:
        """Compare a row's pixels with its checksum; a damaged row is decoded, and written, again."""
        if checksum(self._digests[row], pixels) != self._checks[row].tobytes():
            data = self._store.program.fetch(self._paths[row])
            fresh = data if isinstance(data, str) else self._store.program.read(data)
            if isinstance(fresh, str) or checksum(self._digests[row], fresh) != self._checks[row].tobytes():
                self._slots[row] = UNKNOWN  # the record is wrong, or the file is another one now
                return
            pixels[...] = fresh
            with contextlib.suppress(StorageError):
                self._store.mend(int(self._slots[row]), fresh)
        self._checked[row] = True
