"""How many images a sealed file and its int8 form name right, the same images for both, and how much is lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from regraft.data.labels import Labels, are_multilabel
from regraft.errors import DataError
from regraft.evaluation.metrics.paired import difference_interval
from regraft.exports.int8.images import decoded
from regraft.exports.running.session import SealedSession
from regraft.models.describe.decide import chosen_places

__all__ = ["MOST_DROP", "MOST_LIKELY_DROP", "Answers", "Drop", "Measured", "answers", "require_half"]

MOST_DROP, MOST_LIKELY_DROP = 0.003, 0.01  # measured, and with 95 % confidence


class Measured(Protocol):
    """What a file says of the images that are measured."""

    def drops(self, after: Any) -> list[Drop]:
        """Return what another file loses on the same images, by each measure."""


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

    def drops(self, after: Answers) -> list[Drop]:
        """Return what another file loses on the same images."""
        return [Drop.between(self, after)]


@dataclass(frozen=True)
class Drop:
    """How much of a measure is lost.

    Attributes:
        num: Images.
        before: The measure in floats: the share of right answers, or what `measure` says.
        after: In integers.
        interval: Of before - after, with 95 % confidence, paired.
        measure: `accuracy`, `miou` or `pixel_accuracy`.
    """

    num: int
    before: float
    after: float
    interval: tuple[float, float]
    measure: str = "accuracy"

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

    def to_dict(self) -> dict[str, float | list[float]]:
        """Return plain data."""
        return {
            f"{self.measure}_fp32": self.before,
            f"{self.measure}_int8": self.after,
            f"{self.measure}_drop_interval": list(self.interval),
        }

    def __str__(self) -> str:
        low, high = (100 * share for share in self.interval)
        drop = f"{100 * (self.before - self.after):.2f} points (95 % interval {low:.2f} to {high:.2f})"
        shown = f"{_SHOWN[self.measure]}{self.before:.2%} in floats, {self.after:.2%} in int8"
        return f"{shown} of {self.num:,} images: a drop of {drop}"


_SHOWN = {"accuracy": "", "miou": "mean IoU ", "pixel_accuracy": "pixel accuracy "}


def answers(session: SealedSession, paths: Sequence[str], labels: Labels) -> Answers:
    """Return what a file says of images.

    Args:
        session: The file.
        paths: The images.
        labels: Their labels.

    Raises:
        DataError: Fewer than half of them can be read.
    """
    seal = session.seal
    probabilities, readable = [], []
    for pixels, which in decoded(paths, seal.preprocessing.pixels):
        probabilities.append(session.run(pixels, resize=False)["probabilities"])
        readable += which
    kept = np.flatnonzero(readable)
    require_half(len(kept), len(paths))
    shares = np.concatenate(probabilities)[kept]
    said = [chosen_places(row, seal.class_names, seal.thresholds) for row in shares]
    own = labels[kept]
    if are_multilabel(own):
        right = [tuple(np.flatnonzero(row).tolist()) == places for row, places in zip(own, said, strict=True)]
    else:
        right = [places == (label,) for label, places in zip(own.tolist(), said, strict=True)]
    return Answers(np.array(right, bool), shares, kept)


def require_half(num: int, total: int) -> None:
    """Raise DataError where fewer than half of the images that are measured can be read."""
    if not num or num < total / 2:
        raise DataError(
            f"Of the {total} images that int8 is measured on, {num} can be read.",
            "more than half of them",
            "put them back; or name other labelled images with `--calibrate FOLDER`",
        )
