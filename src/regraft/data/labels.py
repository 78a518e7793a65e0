"""Labels as arrays: one class number for each image, or a row of zeros and ones where it may have many classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "Labels",
    "are_multilabel",
    "class_counts",
    "label_names",
    "labels_from_names",
    "labels_from_places",
    "no_labels",
    "renumbered",
]

# int64 of shape (rows,): class numbers. uint8 of shape (rows, classes): 1 where the image has the class, else 0.
Labels = npt.NDArray[np.int64] | npt.NDArray[np.uint8]


def are_multilabel(labels: Labels) -> bool:
    """Return whether each image may have any number of classes."""
    return labels.ndim == 2


def class_counts(labels: Labels, num_classes: int) -> npt.NDArray[np.int64]:
    """Return the number of images of each class, int64 of shape (num_classes,)."""
    if are_multilabel(labels):
        sums: npt.NDArray[np.int64] = labels.sum(axis=0, dtype=np.int64)
        return sums
    return np.bincount(labels, minlength=num_classes).astype(np.int64)


def label_names(labels: Labels, class_names: Sequence[str]) -> list[Any]:
    """Return the class name of each row, or the list of its class names, in the order of `class_names`."""
    if not are_multilabel(labels):
        return [class_names[label] for label in labels.tolist()]
    return [[class_names[place] for place in np.flatnonzero(row).tolist()] for row in labels]


def labels_from_names(rows: Sequence[Any], class_names: Sequence[str], *, multilabel: bool) -> Labels:
    """Return labels from the class names of each row: the inverse of `label_names`.

    Args:
        rows: A class name for each row, or a list of them.
        class_names: All classes, in order.
        multilabel: Which of the two.

    Raises:
        KeyError: A name that is no class.
        TypeError: A list where a name was expected, or a name where a list was.
    """
    number = {name: place for place, name in enumerate(class_names)}
    if not multilabel:
        return np.array([number[name] for name in rows], dtype=np.int64)
    for names in rows:
        if not isinstance(names, list):
            raise TypeError(f"{names!r} is not a list of class names")
    places = [[number[name] for name in names] for names in rows]
    return labels_from_places(places, len(class_names), multilabel=True)


def labels_from_places(rows: Sequence[Any], num_classes: int, *, multilabel: bool) -> Labels:
    """Return labels from the class number of each row, or from a list of class numbers for each row."""
    if not multilabel:
        return np.array(rows, dtype=np.int64)
    labels = np.zeros((len(rows), num_classes), dtype=np.uint8)
    for row, places in enumerate(rows):
        labels[row, places] = 1
    return labels


def no_labels(num_rows: int, num_classes: int) -> Labels:
    """Return labels of images of which nothing is known yet: zeros of shape (rows, classes)."""
    return np.zeros((num_rows, num_classes), dtype=np.uint8)


def renumbered(labels: Labels, places: npt.NDArray[np.int64], num_classes: int) -> Labels:
    """Return the labels among other class names: class n becomes class `places[n]` of `num_classes`."""
    if not are_multilabel(labels):
        return places[labels]
    moved = np.zeros((len(labels), num_classes), dtype=np.uint8)
    moved[:, places] = labels
    return moved
