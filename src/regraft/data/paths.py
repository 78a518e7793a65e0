"""Paths of very many files in a few arrays: the folders once, the names in one text, no Python object for each file."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import overload

import numpy as np
import numpy.typing as npt

__all__ = ["FileFacts", "Paths"]

Indices = npt.NDArray[np.int64]
Facts = npt.NDArray[np.void]

# What a walk over the disk saw of a file, in bytes and nanoseconds; a size of -1 says that nobody looked.
FileFacts = np.dtype([("size", "<i8"), ("mtime", "<i8")])
_CODE = ("utf-8", "surrogatepass")  # names that are no text come as lone surrogates, and stay so
_BLOCK = 4096


class Paths(Sequence[str]):
    """A sequence of paths that is made once; 16 bytes for each beside the characters of its name.

    Equal to any sequence of the same strings in the same order. `Paths.of` makes one; `take` gives rows of one, which
    share its text.
    """

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, folders: Sequence[str], text: bytes, columns: npt.NDArray[np.void], facts: Facts | None) -> None:
        self._folders, self._text, self._columns, self._facts = folders, text, columns, facts

    @classmethod
    def of(cls, paths: Iterable[str], facts: Facts | None = None) -> Paths:
        """Return the paths in a compact form; those that are in it already are given back.

        Args:
            paths: Any strings.
            facts: What is known of each, of the type `FileFacts`.
        """
        if isinstance(paths, Paths):
            return paths
        coming, numbers, text = iter(paths), dict[str, int](), bytearray()
        parts = [_columns(0)]
        while block := list(islice(coming, _BLOCK)):
            cuts = [path.rfind(os.sep) + 1 for path in block]
            names = [path[cut:].encode(*_CODE) for path, cut in zip(block, cuts, strict=True)]
            part = _columns(len(block))
            part["folder"] = [
                numbers.setdefault(path[:cut], len(numbers)) for path, cut in zip(block, cuts, strict=True)
            ]
            part["length"] = [len(name) for name in names]
            part["start"] = len(text) + np.cumsum(part["length"], dtype=np.int64) - part["length"]
            text += b"".join(names)
            parts.append(part)
        return cls(list(numbers), bytes(text), np.concatenate(parts), facts)

    @classmethod
    def joined(cls, many: Iterable[Paths]) -> Paths:
        """Return the rows of all of them, one after the other."""
        given = [paths for paths in many if len(paths)]
        if len(given) == 1:
            return given[0]
        folders: dict[str, int] = {}
        texts, columns, start = [], [_columns(0)], 0
        for paths in given:
            number = np.array([folders.setdefault(name, len(folders)) for name in paths._folders], dtype=np.int32)
            moved = paths._columns.copy()
            moved["folder"] = number[moved["folder"]]
            moved["start"] += start
            start += len(paths._text)
            texts.append(paths._text)
            columns.append(moved)
        facts = [paths._facts for paths in given if paths._facts is not None]
        known = np.concatenate(facts) if facts and len(facts) == len(given) else None
        return cls(list(folders), b"".join(texts), np.concatenate(columns), known)

    def take(self, rows: Indices) -> Paths:
        """Return the paths of these rows, in this order."""
        facts = None if self._facts is None else self._facts[rows]
        return Paths(self._folders, self._text, self._columns[rows], facts)

    @property
    def sizes(self) -> npt.NDArray[np.int64] | None:
        """The size of each file in bytes when it was listed, int64 (rows,); None where nobody looked."""
        return None if self._facts is None else self._facts["size"]

    @property
    def mtimes(self) -> npt.NDArray[np.int64] | None:
        """The last change of each file when it was listed, in nanoseconds, int64 (rows,); None where nobody looked."""
        return None if self._facts is None else self._facts["mtime"]

    @property
    def num_bytes(self) -> int:
        """The memory that the rows take, with all of the text that they share."""
        facts = 0 if self._facts is None else self._facts.nbytes
        return self._columns.nbytes + facts + len(self._text) + sum(map(len, self._folders))

    def __len__(self) -> int:
        return len(self._columns)

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> Paths: ...
    def __getitem__(self, row: int | slice) -> str | Paths:
        if isinstance(row, slice):
            facts = None if self._facts is None else self._facts[row]
            return Paths(self._folders, self._text, self._columns[row], facts)
        folder, length, start = self._columns[row].item()
        path: str = self._folders[folder] + self._text[start : start + length].decode(*_CODE)
        return path

    def __iter__(self) -> Iterator[str]:
        for block in range(0, len(self), _BLOCK):
            for folder, length, start in self._columns[block : block + _BLOCK].tolist():
                yield self._folders[folder] + self._text[start : start + length].decode(*_CODE)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str | bytes):
            return NotImplemented
        if isinstance(other, Paths) and other._text is self._text and other._folders is self._folders:
            return np.array_equal(self._columns, other._columns)
        return len(self) == len(other) and all(one == two for one, two in zip(self, other, strict=True))

    def __repr__(self) -> str:
        shown = ", ".join(repr(path) for path in self[:3])
        return f"Paths([{shown}{', ...' if len(self) > 3 else ''}], {len(self)} in all)"


def _columns(num_rows: int) -> npt.NDArray[np.void]:
    """Return an empty index of so many paths: for each row the folder, and the start and length of its name."""
    return np.zeros(num_rows, dtype=[("folder", "<i4"), ("length", "<i4"), ("start", "<i8")])
