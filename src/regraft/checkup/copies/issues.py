"""What copies of images mean: leaks between splits, two labels for one image, images that count twice."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from regraft.checkup.issue import Issue, Item
from regraft.checkup.rows import Rows
from regraft.wording import quantity

__all__ = ["copy_issues", "leaked_rows"]

Group = npt.NDArray[np.int64]
_LEAKS = (("test", "train"), ("val", "train"), ("test", "val"))


def copy_issues(rows: Rows, groups: Sequence[Group], digests: Sequence[bytes]) -> Iterator[Issue]:
    """Yield leaks between splits, near copies with different labels, and near copies within a split."""
    for split, other in _LEAKS:
        yield from _leak(rows, groups, split, other)
    labelled = [group for group in groups if not rows.data.segmentation and _differ(rows, group)]
    near = [group for group in labelled if len({digests[row] for row in group.tolist()}) > 1]
    if near:
        text = f"{quantity(len(near), 'group')} of near copies with different labels: at least one of each is wrong."
        items = _items(rows, near)
        yield Issue("near-conflict", "Near copies with different labels", "warning", text, items)
    inside = [group for group in groups if len(set(rows.split_of[group].tolist())) < len(group)]
    if inside:
        num = sum(len(group) - len(set(rows.split_of[group].tolist())) for group in inside)
        copies = quantity(num, "image is a near copy of another", "images are near copies of others")
        text = f"{copies} in the same split, in {quantity(len(inside), 'group')}: what is there twice counts twice."
        yield Issue("near-duplicates", "Near copies in a split", "note", text, _items(rows, inside))


def leaked_rows(rows: Rows, groups: Sequence[Group], split: str, other: str) -> npt.NDArray[np.int64]:
    """Return the images of a split that have a near copy in another one."""
    if split not in rows.splits or other not in rows.splits:
        return np.empty(0, dtype=np.int64)
    one, two = rows.splits.index(split), rows.splits.index(other)
    found = [group[rows.split_of[group] == one] for group in groups if (rows.split_of[group] == two).any()]
    return np.sort(np.concatenate([np.empty(0, dtype=np.int64), *found]))


def _leak(rows: Rows, groups: Sequence[Group], split: str, other: str) -> Iterator[Issue]:
    leaked = leaked_rows(rows, groups, split, other)
    if not len(leaked):
        return
    num_all = len(rows.data.splits[split])
    verb = "has" if len(leaked) == 1 else "have"
    text = (
        f"{len(leaked):,} of {quantity(num_all, f'{split} image')} {verb} a near copy in {other}: metrics on {split} "
    )
    text += "are inflated by train/test leakage." if other == "train" else "are not independent of what chose the run."
    crossing = [group for group in groups if np.isin(group, leaked).any()]
    pair = [rows.splits.index(split), rows.splits.index(other)]
    members = [group[np.isin(rows.split_of[group], pair)] for group in crossing]
    yield Issue(f"leak-{split}-{other}", f"Copies of {other} images in {split}", "warning", text, _items(rows, members))


def _differ(rows: Rows, group: Group) -> bool:
    return bool((rows.labels[group] != rows.labels[group[0]]).any())


def _items(rows: Rows, groups: Sequence[Group]) -> tuple[Item, ...]:
    return tuple(rows.item(row, group=number) for number, group in enumerate(groups) for row in group.tolist())
