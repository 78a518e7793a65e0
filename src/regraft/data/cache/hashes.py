"""The content hash of each file, remembered by path, size and times, so that unchanged files are not read again.

A file whose last change is younger than two seconds is not remembered: another change could still carry the same time
(file systems count in steps of up to two seconds). The time of the last change of the file's entry counts as well, so
that a file which was exchanged and given back its old time is seen.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from regraft import commit
from regraft.data.cache.append_log import Ledger, Records
from regraft.data.files import access

__all__ = ["FileHashes", "Stamps", "stamp", "stamps"]

Stamps = npt.NDArray[np.void]  # structured: path (16 bytes of its hash), size, mtime, ctime
Digests = npt.NDArray[np.uint8]

_FIELDS = [("path", "V16"), ("size", "<i8"), ("mtime", "<i8"), ("ctime", "<i8")]
_MISSING = -1
_YOUNG_NS = 2_000_000_000
_MOST_BYTES = 1 << 28  # of the file: 3 million hashes


def stamps(paths: Sequence[str]) -> Stamps:
    """Return the size and times of each file, by which a change is noticed; a missing file has the size -1."""
    found: Stamps = np.zeros(len(paths), dtype=_FIELDS)
    for row, (path, status) in enumerate(zip(paths, access.states_of(paths), strict=True)):
        found[row] = _stamp(path, status)
    return found


def stamp(path: str) -> tuple[bytes, int, int, int]:
    """Return one row of `stamps`."""
    return _stamp(path, next(access.states_of([path])))


def _stamp(path: str, status: os.stat_result | None) -> tuple[bytes, int, int, int]:
    full = path if os.path.isabs(path) else os.path.abspath(path)
    key = hashlib.blake2b(full.encode("utf-8", "surrogateescape"), digest_size=16).digest()
    if status is None:
        return key, _MISSING, 0, 0
    return key, status.st_size, status.st_mtime_ns, status.st_ctime_ns


class FileHashes:
    """SHA-256 of files by their stamps, in the file `path`.

    Raises:
        StorageError: The file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._ledger = Ledger(path, [*_FIELDS, ("digest", "V32")])
        self._began = time.time_ns()
        self._records = _newest(self._ledger.fresh())
        self._keys = _keys(self._records["path"])

    def find(self, wanted: Stamps) -> tuple[Digests, npt.NDArray[np.bool_]]:
        """Return the digests, uint8 (N, 32), and which of them are known; the others are zero."""
        digests = np.zeros((len(wanted), 32), dtype=np.uint8)
        if not len(self._records) or not len(wanted):
            return digests, np.zeros(len(wanted), dtype=bool)
        place = np.minimum(np.searchsorted(self._keys, _keys(wanted["path"])), len(self._keys) - 1)
        there = self._records[place]
        known = (wanted["size"] >= 0) & np.logical_and.reduce([there[name] == wanted[name] for name, _ in _FIELDS])
        digests[known] = _bytes(there["digest"][known], 32)
        return digests, known

    def remember(self, found: Stamps, digests: Digests) -> None:
        """Keep the digests of files that were read while they had these stamps.

        Raises:
            StorageError: The disk is full or read-only.
        """
        old = found["mtime"] < self._began - _YOUNG_NS
        old &= found["size"] >= 0
        if not old.any():
            return
        columns = {name: found[name][old] for name, _ in _FIELDS}
        records = self._ledger.records(**columns, digest=np.ascontiguousarray(digests[old]).view("V32")[:, 0])
        with self._ledger.locked():
            self._make_room()
            self._ledger.append(records)

    def _make_room(self) -> None:
        """Forget the files of long ago, where the list has become very long."""
        path = self._ledger.path
        if path.exists() and path.stat().st_size > _MOST_BYTES:
            records = Ledger(path, [*_FIELDS, ("digest", "V32")]).fresh()
            commit.write_bytes(path, records[-len(records) // 2 :].tobytes())


def _newest(records: Records) -> Records:
    """Return the last record of each path, sorted by the path's key."""
    keys = _keys(records["path"])
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    last = np.ones(len(keys), dtype=bool)
    last[:-1] = keys[:-1] != keys[1:]
    return records[order[last]]


def _keys(values: Records) -> npt.NDArray[np.uint64]:
    """Return the first 8 bytes of each value as a number."""
    return _bytes(values, values.dtype.itemsize)[:, :8].copy().view(np.uint64)[:, 0]


def _bytes(values: Records, width: int) -> Digests:
    return np.ascontiguousarray(values).view(np.uint8).reshape(-1, width)
