"""Which images belong together though they are no copies: the same patient, the same drive."""

from __future__ import annotations

import csv
import os
import re
from pathlib import Path

from regraft.checkup.rows import Rows
from regraft.data.sources.labels.columns import choose_columns
from regraft.data.sources.packed import is_archive
from regraft.errors import SettingsError, did_you_mean

__all__ = ["names_of_groups"]

FOLDER = "folder"


def names_of_groups(rows: Rows, group: str) -> list[str | None]:
    """Return the name of each image's group; None for one that has none.

    Args:
        rows: The images.
        group: A column of the table that lists them; else `folder`, or a regular expression that is looked for in their
            paths: images with the same first group of it (or the same match) belong together.

    Raises:
        SettingsError: It is none of these, or says nothing of any image.
    """
    source = Path(rows.data.source or rows.data.root)
    paths = [rows.shown_path(row).replace(os.sep, "/") for row in range(len(rows))]
    if source.is_file() and not is_archive(source):
        return _column(source, group, paths)
    if group == FOLDER:
        return [str(Path(path).parent) for path in paths]
    try:
        pattern = re.compile(group)
    except re.error as error:
        raise SettingsError(f"The group {group!r} is not a regular expression ({error}).") from None
    found = [pattern.search(path) for path in paths]
    if not any(found):
        raise SettingsError(
            f"No path holds the group {group!r}.",
            "a part of the paths, as a regular expression",
            f"such as {paths[0]!r}",
        )
    return [None if match is None else match.group(1 if pattern.groups else 0) for match in found]


def _column(table: Path, column: str, paths: list[str]) -> list[str | None]:
    """Return what a column of a table says of each path; a path is found by its end."""
    with table.open(newline="", encoding="utf-8-sig", errors="replace") as stream:
        sample = stream.read(1 << 14)
        stream.seek(0)
        delimiter = max(",;\t", key=sample.partition("\n")[0].count)
        header, *lines = list(csv.reader(stream, delimiter=delimiter)) or [[]]
    names = [name.strip() for name in header]
    columns = choose_columns(names, lines[0] if lines else ())
    if column not in names or isinstance(columns, str):
        hint = did_you_mean(column, names)
        raise SettingsError(f"{str(table)!r} has no column {column!r}{hint}.", f"one of {', '.join(map(repr, names))}")
    place = names.index(column)
    said = {_key(line[columns.path]): line[place].strip() for line in lines if len(line) > max(columns.path, place)}
    return [_of_path(path, said) for path in paths]


def _of_path(path: str, said: dict[str, str]) -> str | None:
    parts = path.split("/")
    for start in range(len(parts)):
        end = "/".join(parts[start:])
        for key in (end, os.path.splitext(end)[0]):
            if said.get(key):
                return said[key]
    return said.get("/" + path) or None


def _key(path: str) -> str:
    return path.strip().replace("\\", "/").removeprefix("./")
