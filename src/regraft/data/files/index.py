"""Where the members of an archive lie: a tree of folders over one array with a row for each member.

A million members take about 60 MB. The bytes of an index are kept in the cache, so that an archive is read through
once.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

__all__ = ["CODE", "MEMBER", "Index", "Kind"]

Kind = Literal["zip", "tar", "tar.gz", "parquet", "arrow", "remote"]
_KINDS: dict[str, Kind] = {kind: kind for kind in get_args(Kind)}

CODE = ("utf-8", "surrogatepass")
MEMBER = np.dtype(
    [
        *(("offset", "<i8"), ("size", "<i8"), ("packed", "<i8"), ("start", "<i8")),
        *(("crc", "<u4"), ("length", "<i4"), ("method", "<u2")),
    ]
)
_VERSION = 1
_DIGEST_BYTES = 32


@dataclass(frozen=True, eq=False)
class Index:
    """The members of one archive, by folder, and in each folder by name.

    Attributes:
        kind: What kind of archive it is.
        folders: The paths of its folders; the first is the archive itself, "".
        places: Where the rows of each folder begin in `table`, int64 (folders + 1,).
        table: Offset, size, packed size, checksum, method and name of each member, of the type `MEMBER`.
        text: All names.
        faults: Why members cannot be read, by row.
        notes: What a person should know about the archive.
        refused: What forbids using the archive, a line for each member.
    """

    kind: Kind
    folders: tuple[str, ...]
    places: npt.NDArray[np.int64]
    table: npt.NDArray[np.void]
    text: bytes
    faults: dict[int, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()
    _last: list[int] = field(default_factory=lambda: [0], repr=False)  # the row that was asked for last

    @cached_property
    def _starts(self) -> npt.NDArray[np.int64]:
        return self.table["start"]

    @cached_property
    def _lengths(self) -> npt.NDArray[np.int32]:
        return self.table["length"]

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {path: number for number, path in enumerate(self.folders)}

    @cached_property
    def _inside(self) -> dict[str, list[str]]:
        inside: dict[str, list[str]] = {}
        for path in self.folders[1:]:
            parent, _, name = path.rpartition("/")
            inside.setdefault(parent, []).append(name)
        return {parent: sorted(names) for parent, names in inside.items()}

    def folder(self, path: str) -> int | None:
        """Return the number of a folder; None where there is none of this path."""
        return self._numbers.get(path)

    def folders_in(self, path: str) -> list[str]:
        """Return the names of the folders in a folder, sorted."""
        return self._inside.get(path, [])

    def rows_in(self, path: str) -> range:
        """Return the rows of the files in a folder, which are sorted by name."""
        number = self._numbers.get(path)
        return range(0) if number is None else range(int(self.places[number]), int(self.places[number + 1]))

    def name(self, row: int) -> str:
        """Return the name of a member in its folder."""
        return self._encoded(row).decode(*CODE)

    def folder_of(self, row: int) -> str:
        """Return the path of the folder that a file lies in."""
        return self.folders[int(np.searchsorted(self.places, row, side="right")) - 1]

    def row(self, path: str) -> int | None:
        """Return the row of a file; None where there is none of this path."""
        folder, _, own = path.rpartition("/")
        rows, wanted = self.rows_in(folder), own.encode(*CODE)
        low, high = self._around(rows, wanted)
        while low < high:
            middle = (low + high) // 2
            if self._encoded(middle) < wanted:
                low = middle + 1
            else:
                high = middle
        self._last[0] = low
        return low if low < rows.stop and self._encoded(low) == wanted else None

    def _around(self, rows: range, wanted: bytes) -> tuple[int, int]:
        """Return between which rows a name belongs: near the last one asked for, as files mostly come in order."""
        last, step = self._last[0], 1
        if last not in rows or self._encoded(last) > wanted:
            return rows.start, rows.stop
        while (end := last + step) < rows.stop and self._encoded(end) < wanted:
            last, step = end, 4 * step
        return last, min(end, rows.stop)

    def mark_clashes(self) -> list[str]:
        """Note which members are files and folders at once, and return their paths: as folders they are listed."""
        clashes = [(path, row) for path in self.folders[1:] if (row := self.row(path)) is not None]
        self.faults.update((row, "is a file and a folder at once") for _, row in clashes)
        return [path for path, _ in clashes]

    def to_bytes(self) -> bytes:
        """Return the index as bytes; `from_bytes` gives an equal one back."""
        head = {
            "version": _VERSION,
            "kind": self.kind,
            "folders": self.folders,
            "faults": list(self.faults.items()),
            "notes": self.notes,
            "refused": self.refused,
            "rows": len(self.table),
        }
        lines = json.dumps(head).encode("ascii") + b"\n"
        body = b"".join([lines, self.places.astype("<i8").tobytes(), self.table.tobytes(), self.text])
        return hashlib.sha256(body).digest() + body

    @classmethod
    def from_bytes(cls, data: bytes) -> Index | None:
        """Return the index that `to_bytes` wrote; None for bytes of another kind, or damaged ones."""
        body = data[_DIGEST_BYTES:]
        if hashlib.sha256(body).digest() != data[:_DIGEST_BYTES]:
            return None
        end = body.index(b"\n") + 1
        head = json.loads(body[:end])
        if head["version"] != _VERSION:
            return None
        num_folders, num_rows = len(head["folders"]), head["rows"]
        table = end + 8 * (num_folders + 1)
        text = table + MEMBER.itemsize * num_rows
        return cls(
            _KINDS[head["kind"]],
            tuple(head["folders"]),
            np.frombuffer(body, dtype="<i8", count=num_folders + 1, offset=end),
            np.frombuffer(body, dtype=MEMBER, count=num_rows, offset=table),
            body[text:],
            dict(head["faults"]),
            tuple(head["notes"]),
            tuple(head["refused"]),
        )

    def paths(self) -> Iterator[tuple[str, int]]:
        """Yield the path and the row of every file."""
        for path in self.folders:
            for row in self.rows_in(path):
                yield (f"{path}/{self.name(row)}" if path else self.name(row)), row

    def _encoded(self, row: int) -> bytes:
        start = self._starts.item(row)
        return self.text[start : start + self._lengths.item(row)]
