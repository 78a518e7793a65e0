"""What the labels alone say: how many images each class has, and images with two labels."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from regraft.checkup.features import Described
from regraft.checkup.issue import Issue, Item
from regraft.checkup.mislabelled import judge
from regraft.checkup.rows import Rows
from regraft.checkup.survey import Survey
from regraft.wording import percent, quantity

__all__ = ["class_issues", "conflicts", "counts_by_split", "suspicions"]

_FEW = 10  # images of a class in training: fewer say little of it
_ABOVE_CHANCE = 0.1  # share of images that agree with their labels, for these to be judged
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
        text = f"{quantity(len(few), 'class has', 'classes have')} fewer than {_FEW} training images: {shown}."
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


def suspicions(rows: Rows, described: Described) -> Iterator[Issue | str]:
    """Yield labels that the other images contradict, and images far from every class; or why neither can be told."""
    reason = _untold(rows, described)
    if reason:
        yield f"wrong labels and outliers: {reason}"
        return
    labels = rows.labels[described.rows].astype(np.int64)
    judged, names = judge(described.features, labels), rows.data.class_names
    agreed, chance = float((judged.margins > 0).mean()), float(np.bincount(labels).max() / len(labels))
    if agreed < chance + _ABOVE_CHANCE:
        yield (
            f"wrong labels and outliers: {described.network} hardly tells the classes apart: {percent(agreed)} of the "
            f"images agree with their labels, and {percent(chance)} are of the largest class"
        )
        return
    suspects, outliers = judged.suspects, judged.outliers
    if len(suspects):
        items = tuple(
            rows.item(
                int(described.rows[place]),
                suggestion=names[judged.suggested[place]],
                score=round(float(min(1.0, -judged.margins[place])), 4),
            )
            for place in suspects.tolist()
        )
        text = f"{quantity(len(items), 'label is', 'labels are')} contradicted by the other images."
        yield Issue("label-error", "Labels that are probably wrong", "warning", text, items)
    if len(outliers):
        details = [f"{judged.distances[place]:.0f} standard deviations from its class" for place in outliers.tolist()]
        items = rows.items(described.rows[outliers].tolist(), details)
        text = f"{quantity(len(items), 'image is', 'images are')} unlike every class."
        yield Issue("outlier", "Images that may belong to no class", "note", text, items)


def _untold(rows: Rows, described: Described) -> str:
    """Return why labels cannot be judged; empty where they can."""
    if not rows.has_classes:
        return "images have masks, or any number of classes, and labels are judged where each has one"
    counts = np.bincount(rows.labels[described.rows])
    if int((counts > 1).sum()) < 2:
        return "at least two classes with two readable images each are needed"
    spread = described.features.std(0).max()
    if spread <= 1e-6 * max(float(np.abs(described.features).max()), 1e-12):
        return f"{described.network} gives all images the same features"
    return ""
