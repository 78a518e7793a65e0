"""Names for numbers: a file with one class name a line, the first for the label 0, as lies beside Caffe's lists."""

from __future__ import annotations

import re
from pathlib import Path

from regraft.data.files import access
from regraft.data.sources.bad_rows import BadRows
from regraft.data.sources.text import TextLines
from regraft.errors import DataError

__all__ = ["find_names", "read_names"]

_NUMBERED = re.compile(r"([0-9]{1,9})[\s:,]\s*(\S.*)")
_BESIDE = ("names.txt", "class_names.txt", "classes.txt", "labels.txt", "synset_words.txt", "synsets.txt")


def find_names(folder: Path) -> Path | None:
    """Return the first names file in a folder under one of the default names."""
    return next((folder / name for name in _BESIDE if access.is_file(folder / name)), None)


def read_names(path: Path) -> dict[int, str]:
    """Return the class name for each number, in the order of the file.

    A line is a name, and the first line is the label 0; where the lines are numbered themselves (`1 wren`, `2 crow`, as
    in CUB-200), these numbers count.

    Raises:
        DataError: No such file, or lines that are empty or stand twice; all of them named.
    """
    bad = BadRows()
    rows = _rows(path, bad)
    numbered = [_NUMBERED.fullmatch(text) for _, text in rows]
    start = int(numbered[0][1]) if rows and numbered[0] is not None else -1
    explicit = start in (0, 1) and all(
        match is not None and int(match[1]) == start + place for place, match in enumerate(numbered)
    )
    names: dict[int, str] = {}
    first: dict[str, int] = {}
    for place, (row, text) in enumerate(rows):
        match = numbered[place]
        name = match[2] if explicit and match is not None else text
        if name in first:
            bad.add(path, row, "names that stand twice", f"{name!r} stands in row {first[name]} already")
        first.setdefault(name, row)
        names[place + start if explicit else place] = name
    if len(bad) or not names:
        raise DataError(
            f"{str(path)!r} cannot be used as a list of class names.",
            "it has one name a line; the first line is the label 0, unless the lines are numbered",
            "",
            details=bad.lines or [f"{path.name}: is empty."],
        )
    return names


def _rows(path: Path, bad: BadRows) -> list[tuple[int, str]]:
    """Return the lines of a file that hold anything, with their numbers; an empty one between them is a mistake."""
    lines = TextLines(path, bad)
    rows = [(lines.number, line.strip()) for line in lines]
    while rows and not rows[-1][1]:  # empty lines at the end are how files end
        rows.pop()
    for row, text in rows:
        if not text:
            bad.add(path, row, "empty rows", "is empty, so that all labels behind it would be shifted")
    return [(row, text) for row, text in rows if text]
