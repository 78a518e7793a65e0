"""Decoded pixels on the disk, by the contents of their files: what one run has decoded, the next one maps into memory.

A store holds the rows of one pixel program: `rows.bin`, appended to; `rows.index`, which says for each content hash
where its row lies and what the row's checksum is; `unreadable.jsonl`, the contents that hold no image. A row is
there when its index record is: the record is written last. Two processes may fill one store at once.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import mmap
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import PIL
from PIL import features

from regraft import commit
from regraft.data.cache.append_log import Ledger, open_private, write_all
from regraft.data.cache.row_index import FIELDS, READABLE, UNKNOWN, Checksums, Digests, RowIndex, Slots, as_void
from regraft.data.cache.row_program import RowProgram
from regraft.errors import StorageError
from regraft.machine.disk import disk_errors
from regraft.machine.in_use import hold

__all__ = ["RESERVE_BYTES", "PixelStore", "checksum"]

Pixels = npt.NDArray[np.uint8]

VERSION = 1  # of the store's own format and of everything in regraft that decides about pixels
RESERVE_BYTES = 1 << 30  # that stay free on the disk, whatever there is to store


class PixelStore:
    """The rows of one pixel program below the folder `root`; what is there and is not of this program is removed.

    Args:
        root: The folder of all stores.
        program: Its rows are those after the first resize.

    Raises:
        StorageError: The folder cannot be read or written, or belongs to somebody else.
    """

    def __init__(self, root: Path, program: RowProgram) -> None:
        self.program = program.first
        self.row_bytes = math.prod(self.program.row_shape)
        identity = _identity(self.program)
        self.folder = root / hashlib.sha256(commit.as_json(identity).encode()).hexdigest()[:16]
        _prepare(self.folder, identity)
        self._held = hold(self.folder / "store.json")  # for as long as this store is used
        self._ledger = Ledger(self.folder / "rows.index", FIELDS)
        self._index = RowIndex(self._ledger.dtype)
        self._index.take_in(self._ledger.fresh())
        self.reasons = _read_reasons(self.folder / "unreadable.jsonl")

    @property
    def num_bytes(self) -> int:
        """The size of all rows on the disk."""
        return _size(self.folder / "rows.bin")

    def find(self, digests: Digests) -> tuple[Slots, Checksums]:
        """Return for each content hash, uint8 (N, 32): its slot, READABLE or UNKNOWN, and its checksum, uint8 (N,
        16).
        """
        slots, checks = self._index.find(digests)
        slots[slots >= self.num_bytes // self.row_bytes] = UNKNOWN  # the end of the file is gone
        return slots, checks

    def refresh(self) -> None:
        """Read which rows other processes have added.

        Raises:
            StorageError: The index cannot be read.
        """
        self._index.take_in(self._ledger.fresh())

    def add(self, digests: Digests, pixels: Sequence[Pixels], checks: Checksums) -> None:
        """Keep rows under their content hashes; those that another process has kept meanwhile are left out.

        Raises:
            StorageError: The disk is full, or nearly so; nothing counts as kept.
        """
        with self._ledger.locked():
            self._index.take_in(self._ledger.fresh())
            slots, _ = self.find(digests)
            new = _first_of_each(digests, np.flatnonzero(slots < 0))
            if len(new):
                first = self._index.num_slots
                self._write_rows(first, [pixels[row] for row in new])
                self._commit(digests[new], np.arange(first, first + len(new)), checks[new])

    def add_readable(self, digests: Digests) -> None:
        """Note that these contents can be decoded, without keeping their rows.

        Raises:
            StorageError: The disk is full or read-only.
        """
        with self._ledger.locked():
            self._index.take_in(self._ledger.fresh())
            new = digests[self.find(digests)[0] == UNKNOWN]
            if len(new):
                self._commit(new, np.full(len(new), READABLE), np.zeros((len(new), 16), np.uint8))

    def add_reason(self, digest: bytes, reason: str) -> None:
        """Note that these contents hold no image, and why.

        Raises:
            StorageError: The disk is full or read-only.
        """
        if digest not in self.reasons:
            commit.append_line(self.folder / "unreadable.jsonl", commit.as_json([*_sealed(digest, reason), reason]))
            self.reasons[digest] = reason

    def mend(self, slot: int, pixels: Pixels) -> None:
        """Write a row again, in its place, whose bytes were not what its checksum says.

        Raises:
            StorageError: The disk is full or read-only.
        """
        with self._ledger.locked():
            self._write_rows(slot, [pixels])

    def map_rows(self) -> mmap.mmap | None:
        """Return all rows that are there now, mapped into memory to be read; None when there are none.

        Raises:
            StorageError: The file cannot be read.
        """
        num_bytes = self.num_bytes // self.row_bytes * self.row_bytes
        if not num_bytes:
            return None
        path = self.folder / "rows.bin"
        with disk_errors(path), path.open("rb") as file:
            return mmap.mmap(file.fileno(), num_bytes, access=mmap.ACCESS_READ)

    def touch(self) -> None:
        """Record the time of use: the store unused for longest is the first to be removed."""
        with contextlib.suppress(OSError):
            os.utime(self.folder / "store.json")

    def _write_rows(self, slot: int, pixels: Sequence[Pixels]) -> None:
        path = self.folder / "rows.bin"
        with disk_errors(path):
            if shutil.disk_usage(self.folder).free < RESERVE_BYTES + len(pixels) * self.row_bytes:
                raise StorageError(
                    f"The disk of {str(self.folder)!r} is nearly full.",
                    f"at least {RESERVE_BYTES / 1e9:.1f} GB stay free beside what regraft keeps of decoded images",
                    "free some space, or set REGRAFT_CACHE to a folder on another disk",
                )
            with open_private(path) as file:
                file.seek(slot * self.row_bytes)
                write_all(file, np.stack(pixels).data)

    def _commit(self, digests: Digests, slots: Slots, checks: Checksums) -> None:
        columns = {"digest": as_void(digests), "slot": slots, "check": as_void(checks)}
        self._ledger.append(self._ledger.records(**columns))
        self._index.take_in(self._ledger.fresh())


def checksum(digest: Digests, pixels: Pixels) -> bytes:
    """Return 16 bytes that tie a row to the contents that it was decoded from."""
    return hashlib.sha256(digest.tobytes() + np.ascontiguousarray(pixels).data).digest()[:16]


def _identity(program: RowProgram) -> dict[str, Any]:
    """Return all that decides about a row beside the file's contents."""
    codecs = ("jpg", "zlib", "libtiff")
    modules = ("webp", "avif")
    return {
        "format": "regraft pixels",
        "version": VERSION,
        "program": program.to_dict(),
        "pillow": PIL.__version__,
        "codecs": {
            **{name: features.version_codec(name) for name in codecs},
            **{name: features.version_module(name) for name in modules},
            "libjpeg_turbo": features.version_feature("libjpeg_turbo"),
        },
    }


def _prepare(folder: Path, identity: dict[str, Any]) -> None:
    """Make the folder, or see that it is this user's and holds this store; anything else in its place is removed."""
    with disk_errors(folder):
        header = folder / "store.json"
        if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
            folder.unlink()
        elif folder.exists() and _holds_other(folder, header, identity):
            commit.remove(folder)
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        if not header.exists():
            commit.write_json(header, identity)


def _holds_other(folder: Path, header: Path, identity: dict[str, Any]) -> bool:
    """Return whether something else has this name; an empty folder is a store that is just being made."""
    try:
        found = json.loads(header.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return (folder / "rows.bin").exists() or (folder / "rows.index").exists()
    except (OSError, ValueError, RecursionError):
        return True
    return bool(found != json.loads(commit.as_json(identity)))


def _read_reasons(path: Path) -> dict[bytes, str]:
    reasons: dict[bytes, str] = {}
    with disk_errors(path), contextlib.suppress(FileNotFoundError):
        for line in path.read_bytes().splitlines():
            with contextlib.suppress(ValueError, TypeError, AttributeError, RecursionError):  # cut off, or not ours
                digest, seal, reason = json.loads(line)
                if [digest, seal] == _sealed(bytes.fromhex(digest), reason):
                    reasons[bytes.fromhex(digest)] = reason
    return reasons


def _sealed(digest: bytes, reason: str) -> list[str]:
    return [digest.hex(), hashlib.sha256(digest + reason.encode("utf-8", "surrogatepass")).hexdigest()[:16]]


def _first_of_each(digests: Digests, rows: Slots) -> Slots:
    """Return, of rows with the same contents, the first."""
    first: dict[bytes, int] = {}
    for row in rows.tolist():
        first.setdefault(digests[row].tobytes(), row)
    return np.array(list(first.values()), dtype=np.int64)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0
