"""What the labels alone say: how many images each class has, and images with two labels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from regraft.checkup.issue import Issue, Item
from regraft.checkup.rows import Rows
from regraft.checkup.survey import Survey
from regraft.wording import quantity

__all__ = ["class_issues", "conflicts", "counts_by_split"]

_FEW = 10  # images of a class in training: fewer say little of it
_UNEVEN = 20.0  # times as many images as another class has


def counts_by_split(rows: Rows) -> dict[str, dict[str, int]]:
    """Return how many images each class has in each split; none for images with masks."""
    if rows.data.segmentation:
        return {name: {} for name in rows.splits}
    return {
        name: dict(zip(rows.data.class_names, rows.data.counts(name).tolist(), strict=True)) for name in rows.splits
    }


def class_issues(counts: dict[str, dict[str, int]]) -> Iterator[Issue]:
    """Yield classes of few images, and classes of very different sizes."""
    train = counts.get("train") or next(iter(counts.values()), {})
    present = {name: num for name, num in train.items() if num}
    few = {name: num for name, num in present.items() if num < _FEW}
    if few:
        shown = ", ".join(f"{name!r} {num}" for name, num in sorted(few.items(), key=lambda item: item[1]))
        text = f"{quantity(len(few), 'class has', 'classes have')} fewer than {_FEW} images to train on: {shown}."
        yield Issue("few-images", "Classes with few images", "note", text)
    if present and max(present.values()) > _UNEVEN * min(present.values()):
        most, least = max(present, key=present.__getitem__), min(present, key=present.__getitem__)
        text = (
            f"Class {most!r} has {present[most]:,} images and {least!r} has {present[least]:,}: accuracy says little "
            "of the small one; balanced accuracy does."
        )
        yield Issue("uneven", "Uneven classes", "note", text)


def conflicts(rows: Rows, seen: Survey) -> Iterator[Issue]:
    """Yield images with the same pixels and different labels."""
    if rows.data.segmentation:
        return
    groups: dict[bytes, list[int]] = {}
    for row in seen.good.tolist():
        groups.setdefault(seen.digests[row], []).append(row)
    items: list[Item] = []
    number = 0
    for members in groups.values():
        if len(members) > 1 and not np.all(rows.labels[members] == rows.labels[members[0]]):
            items += [rows.item(row, "same pixels, another label", group=number) for row in members]
            number += 1
    if items:
        text = f"{quantity(number, 'image has', 'images have')} two labels: the same pixels are there under each."
        yield Issue("label-conflict", "Two labels for the same image", "warning", text, tuple(items))
