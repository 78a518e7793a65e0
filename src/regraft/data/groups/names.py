"""Which images belong together though they are no copies: the same patient, the same animal, the same drive."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from regraft.data.sources.bad_rows import BadRows
from regraft.data.sources.labels.find import folders_of, lists_of, near_of
from regraft.data.sources.labels.locate import Locator
from regraft.data.sources.labels.table import Table, is_table
from regraft.errors import SettingsError, did_you_mean

__all__ = ["Place", "names_of_groups"]

FOLDER = "folder"


@dataclass(frozen=True)
class Place:
    """Where images come from.

    Attributes:
        source: A folder, a list or a table.
        root: What their paths are seen from.
        labels: The list of labels that was named beside the source.
    """

    source: Path
    root: str
    labels: Path | None = None


def names_of_groups(place: Place, paths: Sequence[str], group: str) -> list[str | None]:
    """Return the name of each image's group; None for one that has none.

    Args:
        place: Where the images come from.
        paths: Of the images, absolute.
        group: A column of the table that lists them; else `folder`, or a regular expression that is looked for in their
            paths: images with the same first group of it (or the same match) belong together.

    Raises:
        SettingsError: It is none of these, or says nothing of any image.
    """
    columns: list[str] = []
    if group != FOLDER:
        said = _of_column(place, group, columns)
        if said is not None:
            return [said.get(path) or None for path in paths]
    shown = [_shown(path, place.root) for path in paths]
    return [os.path.dirname(path) for path in shown] if group == FOLDER else _of_pattern(place, shown, group, columns)


def _of_column(place: Place, group: str, columns: list[str]) -> dict[str, str] | None:
    """Return what a column says of each image, by path; None where no table has it, with the names of its columns."""
    lists = lists_of(place.source, place.labels)
    locator = Locator([os.fspath(folder) for folder in folders_of(place.source, lists)])
    found: dict[str, str] | None = None
    for split, path in lists.items():
        near = near_of(split, path)
        if not is_table(path):
            continue
        table = Table(path, BadRows(), locator, split=split, near=near)
        names, cells = table.column(group)
        columns += names
        if cells is not None:
            found = {} if found is None else found
            found |= {locator.find(written, near)[0]: cell for written, cell in cells}
    return found


def _of_pattern(place: Place, paths: Sequence[str], group: str, columns: Sequence[str]) -> list[str | None]:
    try:
        pattern = re.compile(group)
    except re.error as error:
        raise SettingsError(f"The group {group!r} is not a regular expression ({error}).") from None
    found = [pattern.search(path) for path in paths]
    if any(found):
        return [None if match is None else match.group(1 if pattern.groups else 0) for match in found]
    if columns:
        raise SettingsError(
            f"{os.fspath(place.source)!r} has no column {group!r}{did_you_mean(group, columns)}",
            f"one of {', '.join(map(repr, dict.fromkeys(columns)))}; or a regular expression that the paths hold",
        )
    raise SettingsError(
        f"No path holds the group {group!r}.",
        "a part of the paths, as a regular expression",
        f"such as {paths[0]!r}" if paths else "",
    )


def _shown(path: str, root: str) -> str:
    """Return a path as it is seen from the root of the data set."""
    return path.removeprefix(root.rstrip(os.sep) + os.sep).replace(os.sep, "/")
