"""What is kept of images instead of the images: sums over the features that the classifier reads.

They are additive: those of two sets of images are the sum of both, so that a classifier solved from them is the one
that all images together would give.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from regraft.incremental.sample import Sample

__all__ = ["Statistics", "collected", "merged", "ordered"]

Wide = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Statistics:
    """Sums over the images of each class, and a small sample of features to calibrate by.

    Attributes:
        class_names: The classes, in the order of the classifier's rows.
        counts: Images of each class, int64 (classes,).
        sums: Sum of the features of each class, float64 (classes, features).
        products: Sum over all images of the outer product of their features, float64 (features, features), symmetric.
        sample: A bounded number of features, from which the temperature is chosen.
    """

    class_names: tuple[str, ...]
    counts: npt.NDArray[np.int64]
    sums: Wide
    products: Wide
    sample: Sample

    @property
    def num_images(self) -> int:
        return int(self.counts.sum())

    @property
    def num_features(self) -> int:
        return int(self.sums.shape[1])


def collected(
    class_names: Sequence[str], features: npt.NDArray[np.floating], labels: npt.NDArray[np.int64], sample: Sample
) -> Statistics:
    """Return the statistics of images.

    Args:
        class_names: The classes.
        features: (images, features), finite.
        labels: The class of each image, as a position in the class names.
        sample: What is kept of these images to calibrate by.
    """
    wide = features.astype(np.float64)
    sums = np.zeros((len(class_names), wide.shape[1]))
    np.add.at(sums, labels, wide)
    counts = np.bincount(labels, minlength=len(class_names)).astype(np.int64)
    return Statistics(tuple(class_names), counts, sums, wide.T @ wide, sample)


def merged(one: Statistics, other: Statistics) -> Statistics:
    """Return the statistics of both sets of images; classes of the same name are one class."""
    names = ordered(one.class_names, other.class_names)
    counts = np.zeros(len(names), np.int64)
    sums = np.zeros((len(names), one.num_features))
    for part in (one, other):
        rows = places(part.class_names, names)
        counts[rows] += part.counts
        sums[rows] += part.sums
    samples = [part.sample.renumbered(places(part.class_names, names)) for part in (one, other)]
    return Statistics(names, counts, sums, one.products + other.products, samples[0].joined(samples[1], len(names)))


def ordered(old: Sequence[str], new: Sequence[str]) -> tuple[str, ...]:
    """Return all names in the order that the old ones have: by name, by number, or, where it is another, new ones last.

    Args:
        old: The names of the classifier's rows.
        new: Names that may be among them.
    """
    union = {*old, *new}
    by_name = sorted(union)
    if sorted(old) == list(old):
        return tuple(by_name)
    if all(name.isdecimal() for name in union):
        by_number = sorted(by_name, key=int)
        if [name for name in by_number if name in set(old)] == list(old):
            return tuple(by_number)
    return (*old, *(name for name in by_name if name not in set(old)))


def places(names: Sequence[str], among: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return the position of each name among others."""
    place = {name: number for number, name in enumerate(among)}
    return np.array([place[name] for name in names], dtype=np.int64)
