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
from regraft.data.labels import Labels, are_multilabel
from regraft.data.random import bits, permutation
from regraft.errors import SettingsError
from regraft.settings.data import FRACTIONS

__all__ = ["grouped_split", "leak_free_table", "left_out", "table_of", "units_of"]

Places = npt.NDArray[np.int64]

# Kinds of issues whose images are better left out; of copies, those in the split that is measured.
_QUARANTINED = ("unreadable", "blank", "label-conflict", "near-conflict", "label-error")
_LEAKS = {"leak-test-train": "test", "leak-val-train": "val", "leak-test-val": "test"}
_STREAM = 0x67726F7570


def units_of(num: int, groups: Sequence[Sequence[int] | Places], names: Sequence[str | None] = ()) -> Places:
    """Return for each image the number of the unit that a split keeps together.

    Args:
        num: How many images there are.
        groups: Images that are copies of each other.
        names: For each image a name that it shares with others that belong to it (a patient, a drive); None for
            one that stands for itself.
    """
    parent = np.arange(num)

    def root(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = int(parent[row])
        return row

    first: dict[str, int] = {}
    pairs = [(first.setdefault(name, row), row) for row, name in enumerate(names) if name is not None]
    pairs += [(int(group[0]), int(row)) for group in groups for row in group[1:]]
    for one, two in pairs:
        parent[root(two)] = root(one)
    return np.array([root(row) for row in range(num)], dtype=np.int64)


def grouped_split(units: Places, labels: Labels, shares: Sequence[float], *, seed: int = 0) -> Places:
    """Return the part of each image: units stay whole, and every class is divided by the same shares, as nearly as they
    allow.

    The largest units are dealt first, each to the part that lacks most of its classes.

    Args:
        units: For each image the number of its unit.
        labels: Class numbers, or zeros and ones for the classes that an image has.
        shares: Of the parts; they add up to 1.
        seed: Which of the possible splits.
    """
    given = labels if are_multilabel(labels) else np.eye(int(labels.max()) + 1, dtype=np.int64)[labels]
    given = np.concatenate([given, np.ones((len(given), 1), dtype=given.dtype)], axis=1)  # and the size itself
    _, places = np.unique(units, return_inverse=True)
    num_units = int(places.max()) + 1
    holds = np.zeros((num_units, given.shape[1]))
    np.add.at(holds, places, given)
    order = permutation(int(bits(seed, _STREAM, num=1)[0, 0]), 0, num_units)
    order = order[np.argsort(-holds[order, -1], kind="stable")]
    wanted = np.outer(shares, holds.sum(0))
    used = np.array(shares) > 0
    scale = np.maximum(wanted, 1e-9)
    lacks, part = wanted.copy(), np.zeros(num_units, dtype=np.int64)
    for unit in order.tolist():
        need = (lacks / scale) @ (holds[unit] / holds[unit].sum())
        part[unit] = int(np.where(used, need, -np.inf).argmax())
        lacks[part[unit]] -= holds[unit]
    return part[places]


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
