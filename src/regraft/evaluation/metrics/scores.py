"""How well scores put the positives first, at every threshold at once: ROC, precision and recall, their areas."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["Cuts", "average_precision", "cuts", "roc_auc"]

Floats = npt.NDArray[np.floating]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Cuts:
    """What is called positive at each threshold that makes a difference, the strictest first.

    Attributes:
        scores: The lowest score that is called positive; they fall.
        hits: Positives among what is called positive.
        false: Negatives among it.
        num_positive: Positives in all.
        num_negative: Negatives in all.
    """

    scores: npt.NDArray[np.float64]
    hits: Counts
    false: Counts
    num_positive: int
    num_negative: int


def cuts(scores: Floats, positive: npt.NDArray[np.bool_]) -> Cuts:
    """Return the cuts between different scores; equal scores are never told apart.

    Args:
        scores: (N,), finite; larger means positive.
        positive: (N,), whether each one is.
    """
    order = np.argsort(-scores, kind="stable")
    falling, hit = scores[order].astype(np.float64), positive[order]
    last = np.flatnonzero(np.append(np.diff(falling) != 0, True)) if len(falling) else np.zeros(0, np.int64)
    hits = np.cumsum(hit, dtype=np.int64)[last]
    num_positive = int(hit.sum())
    return Cuts(falling[last], hits, last + 1 - hits, num_positive, len(hit) - num_positive)


def roc_auc(scores: Floats, positive: npt.NDArray[np.bool_]) -> float:
    """Return the area under the ROC curve; NaN where there is one kind alone, or where a score is not finite."""
    if not np.isfinite(scores).all() or positive.all() or not positive.any():
        return float("nan")
    cut = cuts(scores, positive)
    hits, false = np.append(0, cut.hits), np.append(0, cut.false)
    area = (np.diff(false) * (hits[1:] + hits[:-1])).sum() / 2
    return float(area / (cut.num_positive * cut.num_negative))


def average_precision(scores: Floats, positive: npt.NDArray[np.bool_]) -> float:
    """Return the precision, averaged over the steps of recall, not interpolated (as in scikit-learn and torchmetrics).

    NaN where nothing is positive, or where a score is not finite.
    """
    if not np.isfinite(scores).all() or not positive.any():
        return float("nan")
    cut = cuts(scores, positive)
    gained = np.diff(cut.hits, prepend=0)
    return float((gained * (cut.hits / (cut.hits + cut.false))).sum() / cut.num_positive)
