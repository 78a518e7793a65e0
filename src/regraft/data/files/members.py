"""The members of an archive while they are collected: columns of numbers and one text, no Python object for each."""

from __future__ import annotations

from array import array
from collections import Counter
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from regraft.data.files.index import CODE, MEMBER, Index, Kind
from regraft.data.files.member_names import inner_path, unsafe_reason
from regraft.wording import quantity

__all__ = ["Members"]

_SHOWN = 20


class Members:
    """Takes the members of one archive in any order, and makes an `Index` of them.

    Args:
        kind: What kind of archive it is.
    """

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.notes: list[str] = []
        self._folders: dict[str, int] = {"": 0}
        self._names = bytearray()
        self._columns = {name: array("q") for name in ("offset", "size", "packed", "crc", "method", "folder", "length")}
        self._faults: dict[int, str] = {}
        self._refused: Counter[str] = Counter()
        self._lines: list[str] = []

    def __len__(self) -> int:
        return len(self._columns["offset"])

    def add_folder(self, name: str) -> None:
        """Add a folder, and those that it lies in."""
        if self._is_safe(name):
            self._folder(inner_path(name))

    def add_file(
        self, name: str, offset: int, size: int, *, packed: int = 0, method: int = 0, crc: int = 0, fault: str = ""
    ) -> int:
        """Add a file, and return its row; -1 for one whose name is refused.

        Args:
            name: As it stands in the archive.
            offset: Where its header (zip) or its bytes (tar) begin.
            size: How many bytes it is said to have.
            packed: How many bytes it takes in the archive.
            method: How these are compressed; 0 is not at all.
            crc: Its checksum, CRC-32.
            fault: Why it cannot be read; empty as far as it is known.
        """
        if not self._is_safe(name):
            return -1
        path = inner_path(name)
        folder, _, own = path.rpartition("/")
        if not own:
            return -1
        encoded = own.encode(*CODE)
        values = (offset, size, packed, crc, method, self._folder(folder), len(encoded))
        for column, value in zip(self._columns.values(), values, strict=True):
            column.append(value)
        self._names += encoded
        if fault:
            self._faults[len(self) - 1] = fault
        return len(self) - 1

    def set_fault(self, row: int, fault: str) -> None:
        """Note why a member cannot be read."""
        self._faults.setdefault(row, fault)

    def column(self, name: str) -> npt.NDArray[np.int64]:
        """Return one number of every member, in the order in which they were added."""
        return np.frombuffer(self._columns[name], dtype=np.int64) if len(self) else np.zeros(0, dtype=np.int64)

    def index(self) -> Index:
        """Return the finished index: members by folder, and in each by name."""
        folder, length = self.column("folder"), self.column("length")
        starts = np.cumsum(length) - length
        by_folder = np.argsort(folder, kind="stable")
        bounds = np.searchsorted(folder[by_folder], np.arange(len(self._folders) + 1))
        order, faults = np.empty(len(self), dtype=np.int64), dict[int, str]()
        place, places = 0, np.zeros(len(self._folders) + 1, dtype=np.int64)
        text = bytes(self._names)
        for number in range(len(self._folders)):
            rows = by_folder[bounds[number] : bounds[number + 1]]
            cuts = zip(starts[rows].tolist(), length[rows].tolist(), strict=True)
            names = [text[start : start + size] for start, size in cuts]
            sequence = sorted(range(len(names)), key=names.__getitem__)
            before = b""
            for at in sequence:
                row = int(rows[at])
                if names[at] == before:
                    place -= 1
                    faults[place] = "stands in the archive more than once"
                elif row in self._faults:
                    faults[place] = self._faults[row]
                order[place], before = row, names[at]
                place += 1
            places[number + 1] = place
        order = order[:place]
        table = np.zeros(len(order), dtype=MEMBER)
        for name in ("offset", "size", "packed", "crc", "method", "length"):
            table[name] = self.column(name)[order]
        table["start"] = starts[order]
        index = Index(self.kind, tuple(self._folders), places, table, text, faults, tuple(self.notes), self._said())
        clashes = index.mark_clashes()
        if not clashes:
            return index
        what = quantity(len(clashes), "member is a file and a folder", "members are files and folders")
        return replace(index, notes=(*index.notes, f"{what} at once, and the file is left out: {clashes[0]!r}."))

    def _folder(self, path: str) -> int:
        number = self._folders.get(path)
        if number is None:
            self._folder(path.rpartition("/")[0])
            number = self._folders[path] = len(self._folders)
        return number

    def _is_safe(self, name: str) -> bool:
        reason = unsafe_reason(name)
        if reason:
            self._refused[reason] += 1
            if len(self._lines) < _SHOWN:
                self._lines.append(f"the member {name!r} {reason}.")
        return not reason

    def _said(self) -> tuple[str, ...]:
        more = self._refused.total() - len(self._lines)
        return (*self._lines, f"and {more} more.") if more > 0 else tuple(self._lines)
