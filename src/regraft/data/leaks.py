"""Find images that are in two splits: metrics on the one are then inflated by what was memorized from the other."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from regraft.data.dataset import DataSet
from regraft.data.decode.image_file import read_file
from regraft.data.files import access
from regraft.data.paths import Paths

__all__ = ["find_leaks", "with_leaks"]

_PAIRS = (("train", "val"), ("train", "test"), ("val", "test"))
_FEW = 3  # examples that are named

Digests = tuple[Sequence[str], npt.NDArray[np.uint8]]  # paths, and the SHA-256 of each file, uint8 (rows, 32)


def find_leaks(data: DataSet, known: Mapping[str, Digests] | None = None) -> list[str]:
    """Return a sentence for each two splits that have files with equal bytes, with their number and the first ones.

    Only files whose size occurs in both splits are read, and those whose digest is known are not read again.

    Args:
        data: The data set.
        known: The digests of the readable files, by split, as `PixelCache` has them.
    """
    finder = _Finder(data, known or {})
    found = []
    for first, second in _PAIRS:
        num, pairs = finder.equal(first, second) if first in data.splits and second in data.splits else (0, [])
        if pairs:
            shown = ", ".join(f"{finder.short(path)!r} = {finder.short(twin)!r}" for path, twin in pairs)
            more = f" and {num - _FEW} more" if num > _FEW else ""
            found.append(
                f"{num} of {len(data.splits[second])} {second} images {'is' if num == 1 else 'are'} in {first} too, "
                "byte for byte "
                f"({shown}{more}); metrics on {second} are inflated by train/test leakage."
            )
    return found


def with_leaks(data: DataSet, known: Mapping[str, Digests] | None = None) -> DataSet:
    """Return the data set with what `find_leaks` says among its warnings."""
    return replace(data, warnings=(*data.warnings, *find_leaks(data, known)))


class _Finder:
    def __init__(self, data: DataSet, known: Mapping[str, Digests]) -> None:
        self.data = data
        self._known = known
        self._sizes: dict[str, npt.NDArray[np.int64]] = {}
        self._read: dict[str, npt.NDArray[np.bytes_]] = {}

    def equal(self, first: str, second: str) -> tuple[int, list[tuple[str, str]]]:
        """Return the number of files in the second split that duplicate one in the first, and the first such pairs."""
        common = np.intersect1d(self._sizes_of(first), self._sizes_of(second))
        one, two = (self._digests(split, common[common > 0]) for split in (first, second))
        contents, at = np.unique(one, return_index=True)
        if not len(contents):
            return 0, []
        place = np.minimum(np.searchsorted(contents, two), len(contents) - 1)
        twins = np.flatnonzero((contents[place] == two) & (two != b""))
        paths = (self.data.splits[second].paths, self.data.splits[first].paths)
        return len(twins), [(paths[0][row], paths[1][int(at[place[row]])]) for row in twins[:_FEW].tolist()]

    def short(self, path: str) -> str:
        """Return a path as it is seen from the root of the data set."""
        return os.path.relpath(path, self.data.root) if path.startswith(self.data.root + os.sep) else path

    def _sizes_of(self, split: str) -> npt.NDArray[np.int64]:
        if split not in self._sizes:
            paths = Paths.of(self.data.splits[split].paths)
            sizes = paths.sizes
            self._sizes[split] = np.array([_size(path) for path in paths], dtype=np.int64) if sizes is None else sizes
        return self._sizes[split]

    def _digests(self, split: str, sizes: npt.NDArray[np.int64]) -> npt.NDArray[np.bytes_]:
        """Return the SHA-256 of each file that has one of these sizes; empty for others, and for what cannot be
        read.
        """
        digests = self._known_digests(split)
        for row in np.flatnonzero(np.isin(self._sizes_of(split), sizes) & (digests == b"")).tolist():
            content = read_file(self.data.splits[split].paths[row])
            digests[row] = hashlib.sha256(content).digest() if isinstance(content, bytes) else b""
        return digests

    def _known_digests(self, split: str) -> npt.NDArray[np.bytes_]:
        """Return the known digests, and empty ones for the rest; kept, so that each file is read once."""
        if split not in self._read:
            paths = self.data.splits[split].paths
            given, digests = self._known.get(split, ((), np.zeros((0, 32), dtype=np.uint8)))
            if paths != given:
                row_of = {path: row for row, path in enumerate(given)}
                rows = [row_of.get(path, -1) for path in paths]
                digests = np.concatenate([digests, np.zeros((1, 32), dtype=np.uint8)])[rows]
            self._read[split] = np.ascontiguousarray(digests).view("S32")[:, 0].copy()
        return self._read[split]


def _size(path: str) -> int:
    try:
        return access.state_of(path).st_size
    except OSError:
        return -1
