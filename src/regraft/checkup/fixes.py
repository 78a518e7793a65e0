"""What can be done about findings without touching a file: another split, and lists of what to leave out."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from regraft.checkup.issue import Issue
from regraft.checkup.rows import Rows
from regraft.data.dataset import SPLITS
from regraft.data.groups.units import grouped_split, units_of
from regraft.errors import SettingsError
from regraft.settings.data import FRACTIONS

__all__ = ["leak_free_table", "left_out", "table_of"]

Places = npt.NDArray[np.int64]

# Kinds of issues whose images are better left out; of copies, those in the split that is measured.
_QUARANTINED = ("unreadable", "blank", "label-conflict", "near-conflict", "label-error")
_LEAKS = {"leak-test-train": "test", "leak-val-train": "val", "leak-test-val": "test"}


def _shares_of(rows: Rows) -> tuple[float, ...]:
    """Return the shares of train, val and test that a data set has, or the default ones where it was not divided."""
    if rows.data.split_origin == "random" or "train" not in rows.splits:
        return FRACTIONS
    sizes = [len(rows.data.splits[name]) if name in rows.splits else 0 for name in SPLITS]
    return tuple(size / sum(sizes) for size in sizes)


def leak_free_table(
    rows: Rows, good: Places, groups: Sequence[Places], names: Sequence[str | None] = (), *, seed: int = 0
) -> str:
    """Return the readable images as a table whose splits share no copies and no groups; `regraft train` reads it.

    The shares of train, val and test are those that the data set has; 70, 15 and 15 % where it was not divided.

    Args:
        rows: All images.
        good: Those that can be read.
        groups: Images that are copies of each other.
        names: For each image the name of its group; None for one without.
        seed: Which of the possible splits.

    Raises:
        SettingsError: The images have masks, or all belong together.
    """
    units = units_of(len(rows), groups, names)[good]
    if len(np.unique(units)) < 2:
        raise SettingsError("All images belong to one group, which no split can divide.", "at least two groups")
    part = grouped_split(units, rows.labels[good], _shares_of(rows), seed=seed)
    return table_of(rows, good, [SPLITS[place] for place in part.tolist()])


def table_of(rows: Rows, chosen: Sequence[int] | Places, splits: Sequence[str]) -> str:
    """Return images as a table that `regraft train` reads: path, label and split.

    Raises:
        SettingsError: They have masks, which a table does not name.
    """
    if rows.data.segmentation:
        raise SettingsError(
            "Images with masks have no table of labels, in which a split could be written.",
            "images with classes",
            "move the images of a group into the same split yourself: check.csv lists the groups",
        )
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(("path", "labels" if rows.data.multilabel else "label", "split"))
    for row, split in zip(chosen, splits, strict=True):
        writer.writerow((rows.paths[int(row)], rows.label(int(row)).replace(", ", "|"), split))
    return stream.getvalue()


def left_out(issues: Sequence[Issue]) -> dict[str, str]:
    """Return the paths of images that are better left out, each with the kind of the first issue that it has."""
    found: dict[str, str] = {}
    for issue in issues:
        leaked = _LEAKS.get(issue.kind)
        if issue.kind not in _QUARANTINED and leaked is None:
            continue
        for item in issue.items:
            if leaked in (None, item.split):
                found.setdefault(item.path, issue.kind)
    return found
