"""How many images a sealed file and its int8 form name right, the same images for both."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from regraft.data.labels import are_multilabel
from regraft.errors import DataError
from regraft.evaluation.metrics.paired import difference_interval
from regraft.exports.int8.images import Images, decoded
from regraft.exports.running.session import SealedSession
from regraft.models.describe.decide import chosen_places

__all__ = ["MOST_DROP", "MOST_LIKELY_DROP", "Answers", "Drop", "answers"]

MOST_DROP, MOST_LIKELY_DROP = 0.003, 0.01  # measured, and with 95 % confidence


@dataclass(frozen=True, eq=False)
class Answers:
    """What a file says of the images.

    Attributes:
        right: (N,), whether the answer is the image's label, or all of its labels.
        probabilities: (N, classes).
        places: (N,), which of the images these are: those that can be read.
    """

    right: npt.NDArray[np.bool_]
    probabilities: npt.NDArray[np.floating]
    places: npt.NDArray[np.intp]


@dataclass(frozen=True)
class Drop:
    """How much accuracy is lost.

    Attributes:
        num: Images.
        before: The share of right answers in floats.
        after: In integers.
        interval: Of before - after, with 95 % confidence, paired.
    """

    num: int
    before: float
    after: float
    interval: tuple[float, float]

    @classmethod
    def between(cls, before: Answers, after: Answers) -> Drop:
        """Return the drop between two files on the same images."""
        lost = int((before.right & ~after.right).sum())
        won = int((after.right & ~before.right).sum())
        num = len(before.right)
        interval = difference_interval(won, lost, num)
        return cls(num, float(before.right.mean()), float(after.right.mean()), interval)

    @property
    def is_small(self) -> bool:
        """Whether it is as small as is promised."""
        return self.before - self.after <= MOST_DROP and self.interval[1] <= MOST_LIKELY_DROP

    def __str__(self) -> str:
        low, high = (100 * share for share in self.interval)
        return (
            f"{self.before:.2%} in floats, {self.after:.2%} in int8 of {self.num:,} images: a drop of "
            f"{100 * (self.before - self.after):.2f} points (95 % interval {low:.2f} to {high:.2f})"
        )


def answers(session: SealedSession, images: Images) -> Answers:
    """Return what a file says of the images that are measured.

    Raises:
        DataError: Fewer than half of them can be read.
    """
    seal = session.seal
    probabilities, readable = [], []
    for pixels, which in decoded(images.paths, seal.preprocessing.pixels):
        probabilities.append(session.run(pixels, resize=False)["probabilities"])
        readable += which
    kept = np.flatnonzero(readable)
    if not len(kept) or len(kept) < len(images.paths) / 2:
        raise DataError(
            f"Of the {len(images.paths)} images that int8 is measured on, {len(kept)} can be read.",
            "more than half of them",
            "put them back; or name other labelled images with `--calibrate FOLDER`",
        )
    shares = np.concatenate(probabilities)[kept]
    said = [chosen_places(row, seal.class_names, seal.thresholds) for row in shares]
    labels = images.labels[kept]
    if are_multilabel(labels):
        right = [tuple(np.flatnonzero(row).tolist()) == places for row, places in zip(labels, said, strict=True)]
    else:
        right = [places == (label,) for label, places in zip(labels.tolist(), said, strict=True)]
    return Answers(np.array(right, bool), shares, kept)
