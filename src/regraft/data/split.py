"""Seeded, stratified splits and folds: a function of the seed, the labels and the fractions, on every platform."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from regraft.data.groups.units import fold_units, grouped_split
from regraft.data.labels import Labels, are_multilabel, class_counts
from regraft.data.random import bits, permutation
from regraft.errors import SettingsError
from regraft.wording import quantity

__all__ = ["divide", "folds", "require_fractions"]

Rows = npt.NDArray[np.int64]

_SPLIT_STREAM = 0x73706C6974  # keeps splits apart from the order of training with the same seed
_FOLD_STREAM = 0x666F6C64


def divide(
    labels: Labels, fractions: Iterable[float], *, seed: int = 0, groups: Rows | None = None
) -> tuple[Rows, ...]:
    """Return row numbers for each part, sorted, every class divided by the same fractions.

    Each later part gets its rounded share of a class and at least one row while rows last; the first part (train)
    gets the rest and never less than one. So a class with one row is in the first part alone, and one with two
    rows is in the first two. Where an image may have several classes, the rarest class is divided first (iterative
    stratification; Sechidis, Tsoumakas and Vlahavas, ECML PKDD 2011), so that the shares hold as nearly as they can.
    Groups stay whole (`grouped_split`).

    Args:
        labels: Class numbers, int64 of shape (rows,), or zeros and ones, uint8 of shape (rows, classes).
        fractions: The share of each part; they add up to 1. A part with the share 0 stays empty.
        seed: Which of the possible splits.
        groups: For each row the number of the group that it belongs to; None divides row by row.

    Raises:
        SettingsError: If the fractions are negative, do not add up to 1, or leave nothing to train on; or if all rows
            are of one group.
    """
    shares = require_fractions(fractions)
    if groups is not None:
        if len(np.unique(groups)) < 2:
            raise SettingsError("All images belong to one group, which no split can divide.", "at least two groups")
        part_of_row = grouped_split(groups, labels, shares, seed=seed)
        return tuple(np.flatnonzero(part_of_row == number) for number in range(len(shares)))
    stream = int(bits(seed, _SPLIT_STREAM, num=1)[0, 0])
    if are_multilabel(labels):
        chosen = _dealt(labels, shares, stream, complete=0)
        return tuple(np.flatnonzero(chosen == part) for part in range(len(shares)))
    parts: list[list[Rows]] = [[] for _ in shares]
    for label, rows in _classes(labels):
        rows = rows[permutation(stream, label, len(rows))]
        start = 0
        for part, size in zip(parts, _sizes(len(rows), shares), strict=True):
            part.append(rows[start : start + size])
            start += size
    return tuple(np.sort(np.concatenate([*part, np.empty(0, np.int64)])) for part in parts)


def folds(labels: Labels, num_folds: int, seed: int = 0, *, groups: Rows | None = None) -> Rows:
    """Return the fold of each row for a cross-validation, int64 of shape (rows,), from 0 to `num_folds` - 1.

    Every class is spread over the folds as evenly as its rows allow, and folds differ in size by one row at most (where
    an image may have several classes, as nearly as iterative stratification can). A row that is the only one of its
    class is in no fold and has -1: it is trained on in every fold; so is the only group of a class (`fold_units`).

    Args:
        labels: As for `divide`.
        num_folds: K, from 2 to the number of rows.
        seed: Which of the possible folds.
        groups: As for `divide`.

    Raises:
        SettingsError: If there are more folds than rows or groups, or fewer than two.
    """
    if groups is not None and num_folds >= 2:
        fold = fold_units(groups, labels, num_folds, seed=seed)
        if int(fold.max(initial=-1)) + 1 == num_folds:
            return fold
        raise SettingsError(
            f"{num_folds} folds were asked for, and the {quantity(len(np.unique(groups)), 'group')} of the images "
            f"can be spread over {int(fold.max(initial=-1)) + 1}.",
            "at least one group for each fold, and each class in at least two groups",
            "give a smaller number",
        )
    alone = _only_ones(labels)
    if not 2 <= num_folds <= int((~alone).sum()):
        raise SettingsError(
            f"{num_folds} folds were asked for, of {quantity(int((~alone).sum()), 'image')} that can be spread over "
            "folds.",
            "at least 2 folds, and at least one image for each",
            "give a number such as 5",
        )
    stream = int(bits(seed, _FOLD_STREAM, num=1)[0, 0])
    fold = np.full(len(labels), -1, dtype=np.int64)
    rows = np.flatnonzero(~alone)
    if are_multilabel(labels):
        fold[rows] = _dealt(labels[rows], (1 / num_folds,) * num_folds, stream)
        return fold
    start = 0  # each class begins where the one before it ended, so that the folds stay equal in size
    for label, places in _classes(labels[rows]):
        own = rows[places]
        own = own[permutation(stream, label, len(own))]
        fold[own] = (start + np.arange(len(own))) % num_folds
        start += len(own)
    return fold


def _classes(labels: Labels) -> Iterator[tuple[int, Rows]]:
    """Yield each class that occurs, with its rows in order."""
    order = np.argsort(labels, kind="stable")
    starts = np.flatnonzero(np.diff(labels[order], prepend=-1))
    for rows in np.split(order, starts[1:]) if len(order) else ():
        yield int(labels[rows[0]]), rows


def _only_ones(labels: Labels) -> npt.NDArray[np.bool_]:
    """Return whether a row is the only one of a class."""
    if are_multilabel(labels):
        single = class_counts(labels, labels.shape[1]) == 1
        return np.asarray(labels[:, single].any(axis=1))
    return np.asarray(class_counts(labels, 0)[labels] == 1)


def _dealt(labels: Labels, shares: tuple[float, ...], stream: int, *, complete: int | None = None) -> Rows:
    """Return the part of each row, int64 of shape (rows,), for labels of zeros and ones: iterative stratification.

    Of the class with the fewest rows left, each row goes to the first part that has none of it, else to the one that
    lacks most of it. The part `complete` comes before that until it has every class. Rows without any class come last.
    """
    order = permutation(stream, 0, len(labels))
    labels = labels[order]
    counts = class_counts(labels, labels.shape[1])
    deal = _Dealer(shares, counts, len(labels), complete)
    left = np.ones(len(labels), dtype=bool)
    part = np.empty(len(labels), dtype=np.int64)
    while counts.any():
        label = int(np.where(counts > 0, counts, len(labels) + 1).argmin())
        rows = np.flatnonzero(left & (labels[:, label] > 0))
        part[order[rows]] = [deal(labels[row], label) for row in rows]
        left[rows] = False
        counts = counts - class_counts(labels[rows], len(counts))
    part[order[left]] = [deal(row, None) for row in labels[left]]
    return part


class _Dealer:
    """What each part has and still lacks, while rows are dealt to the parts one by one."""

    def __init__(self, shares: tuple[float, ...], counts: Rows, num_rows: int, complete: int | None) -> None:
        self.complete = complete
        self.parts = [part for part, share in enumerate(shares) if share > 0]
        self.lacks = np.outer(shares, counts)  # of each class, shape (parts, classes)
        self.has = np.zeros(self.lacks.shape, dtype=bool)
        self.room = np.array(shares) * num_rows

    def __call__(self, row: npt.NDArray[np.integer], label: int | None) -> int:
        """Find the part for a row of zeros and ones, of which the class `label` is the one to look at."""
        if self.complete is not None and (row > self.has[self.complete]).any():
            return self._give(self.complete, row)
        without = [] if label is None else [part for part in self.parts if not self.has[part, label]]
        if without:
            return self._give(without[0], row)
        lacks = self.room if label is None else self.lacks[:, label]
        return self._give(max(self.parts, key=lambda part: (lacks[part], self.room[part], -part)), row)

    def _give(self, part: int, row: npt.NDArray[np.integer]) -> int:
        self.lacks[part] -= row
        self.has[part] |= row != 0
        self.room[part] -= 1
        return part


def require_fractions(fractions: Iterable[float]) -> tuple[float, ...]:
    """Return the fractions as a tuple.

    Raises:
        SettingsError: If they are negative, do not add up to 1, or leave nothing to train on.
    """
    shares = tuple(float(share) for share in fractions)
    if shares and min(shares) >= 0 and shares[0] > 0 and abs(sum(shares) - 1) <= 1e-6:
        return shares
    raise SettingsError(
        f"The split fractions are {shares}.",
        "they are shares from 0 to 1 that add up to 1, and the first, for training, is above 0",
        "give, for example, (0.70, 0.15, 0.15)",
    )


def _sizes(num_rows: int, shares: tuple[float, ...]) -> list[int]:
    sizes, left = [], num_rows - 1
    for share in shares[1:]:
        size = min(left, max(1, int(num_rows * share + 0.5))) if share else 0
        sizes.append(size)
        left -= size
    return [num_rows - sum(sizes), *sizes]
