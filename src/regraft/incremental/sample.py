"""A bounded sample of features that a temperature is chosen by: the same one in whatever order images arrive."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["MOST_ROWS", "Sample", "no_sample", "sampled"]

MOST_ROWS = 768  # of 1,280 features in 16 bits: 2 MB


@dataclass(frozen=True, eq=False)
class Sample:
    """Features of some images of each class: those whose keys are smallest.

    Attributes:
        features: float16 (rows, features).
        labels: The class of each row, int64 (rows,).
        keys: What decides who stays, uint64 (rows,): of the content of the image's file.
        counted: Whether a row's image is in the sums, bool (rows,); a validation image is not.
    """

    features: npt.NDArray[np.float16]
    labels: npt.NDArray[np.int64]
    keys: npt.NDArray[np.uint64]
    counted: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, rows: npt.NDArray[np.bool_] | npt.NDArray[np.int64]) -> Sample:
        """Return some of the rows."""
        return Sample(self.features[rows], self.labels[rows], self.keys[rows], self.counted[rows])

    def renumbered(self, classes: npt.NDArray[np.int64]) -> Sample:
        """Return the same rows with other numbers of classes."""
        return Sample(self.features, classes[self.labels], self.keys, self.counted)

    def joined(self, other: Sample, num_classes: int) -> Sample:
        """Return the smallest keys of both, as many of each class as there is room for."""
        both = Sample(
            np.concatenate([self.features, other.features]),
            np.concatenate([self.labels, other.labels]),
            np.concatenate([self.keys, other.keys]),
            np.concatenate([self.counted, other.counted]),
        )
        return both.bounded(num_classes)

    def bounded(self, num_classes: int) -> Sample:
        """Return the rows with the smallest keys of each class, an equal number of each at most, in one order."""
        room = max(1, MOST_ROWS // max(1, num_classes))
        order = np.lexsort((self.counted, self.keys, self.labels))
        labels = self.labels[order]
        first = np.searchsorted(labels, labels)  # where the rows of this class begin
        kept = order[np.arange(len(order)) - first < room]
        return self.take(kept)


def sampled(
    features: npt.NDArray[np.floating],
    labels: npt.NDArray[np.int64],
    keys: npt.NDArray[np.uint64],
    num_classes: int,
    *,
    counted: bool,
) -> Sample:
    """Return a sample of images.

    Args:
        features: (images, features).
        labels: Their classes.
        keys: Of the contents of their files.
        num_classes: Classes that share the room.
        counted: Whether the images are in the sums.
    """
    narrow = np.clip(features, -np.finfo(np.float16).max, np.finfo(np.float16).max).astype(np.float16)
    return Sample(narrow, labels, keys, np.full(len(labels), counted)).bounded(num_classes)


def no_sample(num_features: int) -> Sample:
    """Return a sample of nothing."""
    none = np.zeros(0, np.int64)
    return Sample(np.zeros((0, num_features), np.float16), none, none.astype(np.uint64), none.astype(bool))
