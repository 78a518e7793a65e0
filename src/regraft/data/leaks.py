"""The same picture in two splits: measures on the one then say what was learnt by heart from the other."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from regraft.data.dataset import DataSet
from regraft.data.decode import read_file

__all__ = ["find_leaks", "with_leaks"]

_PAIRS = (("train", "val"), ("train", "test"), ("val", "test"))
_FEW = 3  # examples that are named

Digests = tuple[Sequence[str], npt.NDArray[np.uint8]]  # paths, and the SHA-256 of each file, uint8 (rows, 32)


def find_leaks(data: DataSet, known: Mapping[str, Digests] | None = None) -> list[str]:
    """A sentence for each two splits that have files with equal bytes, with their number and the first ones.

    Only files whose size occurs in both splits are read, and those whose digest is known are not read again.

    Args:
        data: The data set.
        known: The digests of the readable files, by split, as `PixelCache` has them.
    """
    finder = _Finder(data, known or {})
    found = []
    for first, second in _PAIRS:
        pairs = finder.equal(first, second) if first in data.splits and second in data.splits else []
        if pairs:
            shown = ", ".join(f"{finder.short(path)!r} = {finder.short(twin)!r}" for path, twin in pairs[:_FEW])
            more = f" and {len(pairs) - _FEW} more" if len(pairs) > _FEW else ""
            found.append(
                f"{len(pairs)} of {len(data.splits[second])} {second} images are in {first} too, byte for byte "
                f"({shown}{more}); measures on {second} are too good by what was learnt by heart."
            )
    return found


def with_leaks(data: DataSet, known: Mapping[str, Digests] | None = None) -> DataSet:
    """The data set with what `find_leaks` says among its warnings."""
    return replace(data, warnings=(*data.warnings, *find_leaks(data, known)))


class _Finder:
    def __init__(self, data: DataSet, known: Mapping[str, Digests]) -> None:
        self.data = data
        self._sizes: dict[str, npt.NDArray[np.int64]] = {}
        self._digests: dict[str, bytes] = {
            path: digest.tobytes()
            for paths, digests in known.values()
            for path, digest in zip(paths, digests, strict=True)
        }

    def equal(self, first: str, second: str) -> list[tuple[str, str]]:
        """(file of the second split, file of the first) with equal bytes."""
        common = np.intersect1d(self._sizes_of(first), self._sizes_of(second))
        common = common[common > 0]
        twins: dict[bytes, str] = {}
        for path in self._of_size(first, common):
            if digest := self._digest(path):
                twins.setdefault(digest, path)
        return [
            (path, twins[digest]) for path in self._of_size(second, common) if (digest := self._digest(path)) in twins
        ]

    def short(self, path: str) -> str:
        """A path as it is seen from the root of the data set."""
        return os.path.relpath(path, self.data.root) if path.startswith(self.data.root + os.sep) else path

    def _of_size(self, split: str, sizes: npt.NDArray[np.int64]) -> list[str]:
        paths = self.data.splits[split].paths
        return [paths[row] for row in np.flatnonzero(np.isin(self._sizes_of(split), sizes)).tolist()]

    def _sizes_of(self, split: str) -> npt.NDArray[np.int64]:
        if split not in self._sizes:
            self._sizes[split] = np.array([_size(path) for path in self.data.splits[split].paths], dtype=np.int64)
        return self._sizes[split]

    def _digest(self, path: str) -> bytes:
        """The SHA-256 of a file; empty for one that cannot be read."""
        if path not in self._digests:
            content = read_file(path)
            self._digests[path] = hashlib.sha256(content).digest() if isinstance(content, bytes) else b""
        return self._digests[path]


def _size(path: str) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return -1
