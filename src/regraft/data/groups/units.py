"""Splits and folds of whole units: rows that belong together are on one side, and classes keep their shares.

A unit goes to the part that lacks most of what it holds, the largest unit first; then single units are moved while
that brings the shares nearer. What is brought down is the sum, over parts and classes, of the squared difference
between what a part has of a class and its share, for each row of the class; the number of rows counts as one class.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet

import numpy as np
import numpy.typing as npt

from regraft.data.labels import Labels, are_multilabel
from regraft.data.random import bits, permutation

__all__ = ["fold_units", "grouped_split", "units_of"]

Places = npt.NDArray[np.int64]
Asked = Callable[[Places, Places], npt.NDArray[np.bool_]]

_STREAM = 0x67726F7570
_MOST_MOVED = 20_000  # units that are looked at again: with more of them the shares are near already
_ROUNDS = 3


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
    """Return the part of each row: units stay whole, and every class is divided by the same shares, as nearly as they
    allow.

    The first part, which is trained on, has every class. While there are units, no part with a share is empty.

    Args:
        units: For each row the number of its unit.
        labels: Class numbers, or zeros and ones for the classes that a row has.
        shares: Of the parts; they add up to 1.
        seed: Which of the possible splits.
    """
    dealt = _Dealt(units, labels, shares, seed)
    dealt.complete(0)
    for part, share in enumerate(shares):
        if share > 0:
            dealt.fill(part)
    return dealt.part_of_row


def fold_units(units: Places, labels: Labels, num_folds: int, *, seed: int = 0) -> Places:
    """Return the fold of each row, from 0: units stay whole, and every class is in at least two folds.

    -1 stands for units that are trained on in every fold, since a class would otherwise be missing there. Where units
    are too few, fewer folds come back.

    Args:
        units: For each row the number of its unit.
        labels: Class numbers, or zeros and ones for the classes that a row has.
        num_folds: How many.
        seed: Which of the possible folds.
    """
    alone = _only_ones(units, labels)
    fold = np.full(len(units), -1, dtype=np.int64)
    num = min(num_folds, len(np.unique(units[~alone])))
    if num < 2:
        return fold
    dealt = _Dealt(units[~alone], labels[~alone], (1 / num,) * num, seed)
    dealt.spread(present=_classes_of(labels[alone]))
    for part in range(num):
        dealt.fill(part)
    fold[~alone] = dealt.part_of_row
    _, fold[fold >= 0] = np.unique(fold[fold >= 0], return_inverse=True)  # a fold may have lost its units
    return fold


def _pairs(labels: Labels) -> tuple[Places, Places]:
    """Return the row and the class of each label."""
    if are_multilabel(labels):
        rows, classes = np.nonzero(labels)
        return rows.astype(np.int64), classes.astype(np.int64)
    return np.arange(len(labels)), labels.astype(np.int64)


def _classes_of(labels: Labels) -> set[int]:
    return set(np.unique(_pairs(labels)[1]).tolist())


def _only_ones(units: Places, labels: Labels) -> npt.NDArray[np.bool_]:
    """Return whether a row is of a unit that has a class that no other unit has."""
    rows, classes = _pairs(labels)
    pairs = np.unique(np.stack([classes, units[rows]]), axis=1)
    single, counts = np.unique(pairs[0], return_counts=True)
    lonely = pairs[1][np.isin(pairs[0], single[counts == 1])]
    return np.isin(units, lonely)


class _Dealt:
    """Units that were dealt to parts.

    Attributes:
        part: Of each unit; -1 where it was taken out of all of them.
    """

    def __init__(self, units: Places, labels: Labels, shares: Sequence[float], seed: int) -> None:
        _, self._unit_of = np.unique(units, return_inverse=True)
        num = int(self._unit_of.max()) + 1
        rows, classes = _pairs(labels)
        num_classes = int(classes.max(initial=-1)) + 2  # and the rows themselves
        keys = np.concatenate([self._unit_of[rows] * num_classes + classes, (self._unit_of + 1) * num_classes - 1])
        keys, counts = np.unique(keys, return_counts=True)
        self._units, self._classes = np.divmod(keys, num_classes)
        self._counts = counts.astype(np.float64)
        self._start = np.searchsorted(self._units, np.arange(num + 1))
        self._size = np.bincount(self._unit_of, minlength=num)
        totals = np.bincount(self._classes, weights=self._counts, minlength=num_classes)
        self._weights = 1 / np.maximum(totals, 1)
        self._lacks = np.outer(shares, totals)
        self._used = np.array(shares) > 0
        order = permutation(int(bits(seed, _STREAM, num=1)[0, 0]), 0, num)
        order = order[np.argsort(-self._size[order], kind="stable")]
        self.part = np.full(num, -1, dtype=np.int64)
        for unit in order.tolist():
            self._move(unit, int(np.where(self._used, self._needs(unit), -np.inf).argmax()))
        for _ in range(_ROUNDS):
            if not sum(map(self._is_moved, order[-_MOST_MOVED:].tolist())):
                break

    @property
    def part_of_row(self) -> Places:
        """The part of each row."""
        return self.part[self._unit_of]

    def complete(self, part: int) -> None:
        """Give a part one unit of each class that it lacks, the smallest one."""
        while (lacking := self._classes_where(lambda low, high: (low > part) | (high < part))).size:
            self._move(self._smallest(self._holders(int(lacking[0]))), part)

    def fill(self, part: int) -> None:
        """Give a part that is empty a unit of another one, which keeps its classes."""
        if (self.part == part).any():
            return
        for unit in np.argsort(self._size, kind="stable").tolist():
            own = self.part[unit]
            if own >= 0 and (self.part == own).sum() > 1 and (own > 0 or not self._is_last(unit)):
                self._move(unit, part)
                return

    def spread(self, present: AbstractSet[int]) -> None:
        """Move units until each class is in two parts; one that no place is left for is taken out of all of them.

        Args:
            present: Classes that are trained on whatever the parts are.
        """
        while (gathered := self._classes_where(lambda low, high: (low == high) & (low >= 0), present)).size:
            unit = self._smallest(self._holders(int(gathered[0])))
            places = [place for place in range(len(self._lacks)) if place != self.part[unit]]
            free = [place for place in places if not self._gathers(unit, place)]
            self._move(unit, max(free, key=lambda place: self._needs(unit)[place]) if free else -1)

    def _classes_where(
        self, asked: Callable[[Places, Places], npt.NDArray[np.bool_]], but: AbstractSet[int] = frozenset()
    ) -> Places:
        """Return the classes of which the lowest and the highest part of their units are as asked."""
        labels, places = np.unique(self._classes, return_inverse=True)
        low, high = np.full(len(labels), len(self._lacks)), np.full(len(labels), -1)
        np.minimum.at(low, places, self.part[self._units])
        np.maximum.at(high, places, self.part[self._units])
        found = labels[:-1][asked(low, high)[:-1]]
        return found[~np.isin(found, list(but))]

    def _gathers(self, unit: int, part: int) -> bool:
        """Return whether a part would hold all units of a class, if it had this one."""
        for label in self._held(unit)[0][:-1].tolist():
            parts = {int(self.part[other]) for other in self._holders(label).tolist() if other != unit}
            if parts <= {part}:
                return True
        return False

    def _is_last(self, unit: int) -> bool:
        """Return whether a unit is the only one of its part with one of its classes."""
        own = self.part[unit]
        return any(int((self.part[self._holders(label)] == own).sum()) == 1 for label in self._held(unit)[0][:-1])

    def _held(self, unit: int) -> tuple[Places, npt.NDArray[np.float64]]:
        """Return the classes of a unit, the last one for its rows, and how many there are of each."""
        span = slice(self._start[unit], self._start[unit + 1])
        return self._classes[span], self._counts[span]

    def _holders(self, label: int) -> Places:
        holders: Places = self._units[self._classes == label]
        return holders

    def _smallest(self, units: Places) -> int:
        return int(units[self._size[units].argmin()])

    def _needs(self, unit: int) -> npt.NDArray[np.float64]:
        """Return by how much each part lacks what a unit holds."""
        classes, counts = self._held(unit)
        return _summed(self._lacks[:, classes] * (counts * self._weights[classes]))

    def _is_moved(self, unit: int) -> bool:
        """Move a unit where that brings the shares nearer; return whether it did."""
        classes, counts = self._held(unit)
        own, needs = int(self.part[unit]), self._needs(unit)
        best = int(np.where(self._used, needs, -np.inf).argmax())
        if needs[best] - needs[own] <= float(_summed(counts * counts * self._weights[classes])) * (1 + 1e-9):
            return False
        self._move(unit, best)
        return True

    def _move(self, unit: int, part: int) -> None:
        classes, counts = self._held(unit)
        if self.part[unit] >= 0:
            self._lacks[self.part[unit], classes] += counts
        if part >= 0:
            self._lacks[part, classes] -= counts
        self.part[unit] = part


def _summed(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the sums along the last axis, added one by one: the same bits on every machine, unlike `@`."""
    sums: npt.NDArray[np.float64] = np.cumsum(values, axis=-1)[..., -1]
    return sums
