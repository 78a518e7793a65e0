"""CSV and TSV: `path,label[,split]`, several labels in one cell (`a|b`), or a column of zeros and ones for a class."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from regraft.data.sources.bad_rows import BadRows
from regraft.data.sources.labels.columns import Columns, choose_columns
from regraft.data.sources.labels.flags import FlagColumns, is_flag, survey
from regraft.data.sources.labels.label_cells import Column
from regraft.data.sources.labels.locate import Locator
from regraft.data.sources.labels.records import Record
from regraft.data.sources.listing import quoted
from regraft.data.sources.text import TextLines
from regraft.wording import quantity

__all__ = ["Table", "is_table"]

_DELIMITERS = (",", ";", "\t")
_MOST_NAMED = 12
_NO = {"-1": ("-1", "-1.0"), "": ("",)}  # beside 0
_NOT_A_FLAG = (
    "A column of zeros and ones says 1 (yes) or 0 (no) in every row: where a label is uncertain (-1) or blank, write "
    "one of them, or take the row or the column out."
)
_HEADERLESS = ("path", "label", "split")


def is_table(path: Path) -> bool:
    """Return whether a file is a table with a header, not a list of lines `path label`."""
    if path.suffix.lower() in (".csv", ".tsv"):
        return True
    return _reading(next(iter(TextLines(path, BadRows())), ""))[1]


class Table:
    """The rows of one table.

    Args:
        path: The file.
        bad: Where bad rows go.
        locator: Tells a first row of data from a header.
        split: The split of all rows, where the file stands for one.
        near: The name of a folder that the images may lie in.
        group: A column that says which images belong together.

    Attributes:
        warnings: What a person should know about its columns, after the rows have been read.
        has_labels: Whether there was a column of labels; a table of a test split may have none.
    """

    def __init__(
        self,
        path: Path,
        bad: BadRows,
        locator: Locator,
        *,
        split: str = "",
        near: str = "",
        group: str | None = None,
    ) -> None:
        self.path = path
        self.warnings: list[str] = []
        self.has_labels = True
        self._bad = bad
        self._locator = locator
        self._split = split
        self._near = near
        self._group = group
        self._empty: dict[str, None] = {}

    def __iter__(self) -> Iterator[Record]:
        rows = self._rows(self._bad)
        header = next(rows, None)
        if header is None:
            return
        first = next(rows, None)
        data: Iterable[tuple[int, list[str]]] = itertools.chain([first] if first else [], rows)
        columns = choose_columns(header[1], first[1] if first else (), self._flags_among)
        if isinstance(columns, str) and not columns and self._is_data(header[1]):
            self.warnings.append(f"{self.path.name} has no header; its columns were taken as path, label and split.")
            columns, data = choose_columns(_HEADERLESS[: len(header[1])], header[1]), itertools.chain([header], data)
        if isinstance(columns, str):
            self._refuse(header[1], columns)
            return
        unused = [name for name in columns.unused if name != self._group]
        if unused:
            self.warnings.append(f"{self.path.name}: columns that were not used: {quoted(unused, _MOST_NAMED)}.")
        yield from self._records(data, columns)
        if columns.no is not None:
            no = columns.no or "blank"
            self.warnings.append(f"{self.path.name}: its columns hold 1 and {no} and never 0; {no} was read as no.")
        if columns.flags and self._empty:
            self.warnings.append(f"{self.path.name}: columns without a single 1: {quoted(self._empty, _MOST_NAMED)}.")

    def column(self, name: str) -> tuple[list[str], list[tuple[str, str]] | None]:
        """Return the names of all columns, and for each row its path and the cell of one; None where there is none."""
        rows = [cells for _, cells in self._rows(BadRows())]
        columns = choose_columns(rows[0], rows[1] if len(rows) > 1 else (), self._flags_among) if rows else ""
        if isinstance(columns, str) or name not in columns.names:
            return list(columns.names) if not isinstance(columns, str) else [], None
        place = columns.names.index(name)
        last = max(place, columns.path)
        return list(columns.names), [(cells[columns.path], cells[place]) for cells in rows[1:] if len(cells) > last]

    def _records(self, data: Iterable[tuple[int, list[str]]], columns: Columns) -> Iterator[Record]:
        last, splits = columns.last, dict(columns.splits)
        self._empty = dict.fromkeys(columns.names[place] for place in columns.flags)
        column = None if columns.label is None else Column(columns.names[columns.label], columns.many)
        for row, cells in data:
            if len(cells) <= last or any(cells[len(columns.names) :]):
                reason = f"has {quantity(len(cells), 'cell')}, the header has {len(columns.names)}"
                hint = "; a cell with the delimiter in it needs quotes" if len(cells) > len(columns.names) else ""
                self._bad.add(self.path, row, "rows of another length", reason + hint)
                continue
            label, split = self._label(row, cells, columns), self._split_of(row, cells, columns, splits)
            if label is not None and split is not None:
                yield Record(self.path, row, cells[columns.path], label, split, self._near, bool(columns.flags), column)

    def _flags_among(self, others: Sequence[int]) -> FlagColumns:
        """Return the columns of zeros and ones, from one more pass over the file; bad rows are told later."""
        rows = self._rows(BadRows())
        next(rows, None)
        return survey((cells for _, cells in rows), others)

    def _rows(self, bad: BadRows) -> Iterator[tuple[int, list[str]]]:
        """Yield rows that are not blank, with their line in the file; malformed ones are reported to `bad`."""
        lines = TextLines(self.path, bad)
        text = iter(lines)
        top = next(text, "")
        delimiter, _ = _reading(top)
        if top.lower().startswith("sep=") and len(top.strip()) == 5:  # a line that tells Excel the delimiter
            lines.mark()
            delimiter, top = top[4], next(text, "")
        reader = csv.reader(itertools.chain([top], text), delimiter=delimiter, skipinitialspace=True, strict=True)
        while True:
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                bad.add(self.path, lines.first, "rows that are not table rows", _csv_reason(error))
                lines.mark()
                continue
            row, cells = lines.first or lines.number, [cell.strip() for cell in cells]
            lines.mark()
            if any(cells):
                yield row, cells

    def _is_data(self, cells: Sequence[str]) -> bool:
        return 2 <= len(cells) <= 3 and bool(self._locator.find(cells[0], self._near)[0])

    def _refuse(self, header: Sequence[str], reason: str) -> None:
        if reason and self._split == "test":
            self.has_labels = False
            return
        self._bad.add(
            self.path,
            None,
            "unknown columns",
            f"{reason or 'no column has a name such as path'}; the first row is {quoted(header, _MOST_NAMED)}, "
            "expected are names such as path,label,split",
        )

    def _label(self, row: int, cells: Sequence[str], columns: Columns) -> str | tuple[str, ...] | None:
        if columns.label is not None:
            return cells[columns.label]
        names = []
        for place in columns.flags:
            cell = cells[place]
            if cell == "0":
                continue
            flag = False if columns.no is not None and cell in _NO[columns.no] else is_flag(cell)
            if flag is None:
                reason = f"the column {columns.names[place]!r} holds {cell!r}, not 0 or 1"
                self._bad.add(self.path, row, "cells that are not 0 or 1", reason)
                self._bad.hints.setdefault("flags", _NOT_A_FLAG)
                return None
            if flag:
                names.append(columns.names[place])
                self._empty.pop(columns.names[place], None)
        return tuple(names)

    def _split_of(self, row: int, cells: Sequence[str], columns: Columns, splits: dict[str, str]) -> str | None:
        if columns.split is None or self._split:
            return self._split
        word = cells[columns.split]
        split = splits.get(word.lower())
        if split is None:
            reason = f"the split is {word!r}; it is train, val or test" if word else "has no split, and others have"
            self._bad.add(self.path, row, "unknown splits", reason)
        return split


def _reading(line: str) -> tuple[str, bool]:
    """Return the delimiter of a table by its first line, and whether that line is a header."""
    best = (False, 0, ",")
    for delimiter in _DELIMITERS:
        try:
            cells = next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])
        except csv.Error:
            continue
        known = len(cells) > 1 and choose_columns(cells, ("0",) * len(cells)) != ""
        best = max(best, (known, len(cells), delimiter), key=lambda found: found[:2])
    return best[2], best[0]


def _csv_reason(error: csv.Error) -> str:
    text = str(error)
    if "unexpected end" in text or "field larger" in text:
        return "a quote is opened here and never closed"
    if "expected after" in text:
        return "there is text behind a closing quote; a quote inside a cell is written twice"
    return f"is not a row of a table ({text})"
