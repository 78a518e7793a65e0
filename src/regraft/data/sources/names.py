"""Names for numbers: a file with one class name a line, the first for the label 0, as lies beside Caffe's lists."""

from __future__ import annotations

from pathlib import Path

from regraft.data.sources.bad_rows import BadRows
from regraft.data.sources.text import TextLines
from regraft.errors import DataError

__all__ = ["find_names", "read_names"]

_BESIDE = ("names.txt", "class_names.txt", "classes.txt", "labels.txt", "synset_words.txt", "synsets.txt")


def find_names(folder: Path) -> Path | None:
    """The names file that lies in a folder under one of the usual names; the first of them where there are several."""
    return next((folder / name for name in _BESIDE if (folder / name).is_file()), None)


def read_names(path: Path) -> tuple[str, ...]:
    """The class names of a names file, in its order.

    Raises:
        DataError: No such file, or lines that are empty or stand twice; all of them named.
    """
    bad = BadRows()
    lines = TextLines(path, bad)
    names: dict[str, int] = {}
    empty: list[int] = []
    for line in lines:
        name = line.strip()
        if not name:
            empty.append(lines.number)
        elif name in names:
            bad.add(path, lines.number, "names that stand twice", f"{name!r} stands in row {names[name]} already")
        else:
            names[name] = lines.number
    last = max(names.values(), default=0)
    for row in (row for row in empty if row < last):  # empty lines at the end are how files end
        bad.add(path, row, "empty rows", "is empty, so that all labels behind it would be shifted")
    if len(bad) or not names:
        raise DataError(
            f"{str(path)!r} cannot be used as a list of class names.",
            "It has one name a line; the first line is the label 0.",
            "Correct what is listed below.",
            details=bad.lines or [f"{path.name}: is empty."],
        )
    return tuple(names)
