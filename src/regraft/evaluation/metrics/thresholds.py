"""From which probability on a name is given: chosen on validation images, 0.5 where they are too few to say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from regraft.evaluation.metrics.scores import Cuts, cuts
from regraft.models.describe.outputs import DEFAULT_THRESHOLD, threshold_names

__all__ = ["CRITERIA", "FEWEST", "best_threshold", "choose_thresholds", "supported_threshold"]

_FOLDS = 5
FEWEST = 5  # positives, and negatives; below, a threshold would follow single images


def _balanced_accuracy(cut: Cuts) -> npt.NDArray[np.float64]:
    values: npt.NDArray[np.float64] = (cut.hits / cut.num_positive + 1 - cut.false / cut.num_negative) / 2
    return values


def _f1(cut: Cuts) -> npt.NDArray[np.float64]:
    values: npt.NDArray[np.float64] = 2 * cut.hits / (cut.hits + cut.false + cut.num_positive)
    return values


# What a threshold is chosen to make as large as possible, by output.
CRITERIA: Mapping[str, tuple[str, Callable[[Cuts], npt.NDArray[np.float64]]]] = {
    "binary": ("balanced accuracy", _balanced_accuracy),
    "multilabel": ("F1", _f1),
}


def choose_thresholds(
    output: str,
    probabilities: npt.NDArray[np.floating],
    labels: npt.NDArray[np.integer],
    class_names: Sequence[str],
) -> dict[str, float]:
    """Return the threshold of each name that has one; none for an output that goes by the largest probability.

    One of many labels has a threshold of its own only where validation supports it (`supported_threshold`).

    Args:
        output: A key of `regraft.models.describe.outputs.OUTPUTS`.
        probabilities: (N, C) of validation images.
        labels: (N,) class numbers, or (N, C) of 0 and 1.
        class_names: The C names.
    """
    names = threshold_names(output, class_names)
    if not names:
        return {}
    criterion = CRITERIA[output][1]
    positive = labels[:, None] == np.arange(len(class_names)) if labels.ndim == 1 else labels != 0
    columns = [list(class_names).index(name) for name in names]
    choose = supported_threshold if output == "multilabel" else best_threshold
    return {
        name: choose(probabilities[:, column], positive[:, column], criterion)
        for name, column in zip(names, columns, strict=True)
    }


def best_threshold(
    probabilities: npt.NDArray[np.floating],
    positive: npt.NDArray[np.bool_],
    criterion: Callable[[Cuts], npt.NDArray[np.float64]],
) -> float:
    """Return the threshold with the largest criterion, half-way between two probabilities, or 0.5 where that is as
    good.

    0.5 too where there are fewer than `FEWEST` positives or negatives, or a probability is not finite. Of equally
    good ones the nearest to 0.5.
    """
    if not np.isfinite(probabilities).all() or min(positive.sum(), (~positive).sum()) < FEWEST:
        return DEFAULT_THRESHOLD
    cut = _with_none(cuts(probabilities, positive))
    values = criterion(cut)
    highs, lows = cut.scores, np.append(cut.scores[1:], 0.0)
    inside = (lows < DEFAULT_THRESHOLD) & (highs >= DEFAULT_THRESHOLD)
    thresholds = np.where(inside, DEFAULT_THRESHOLD, (lows + highs) / 2)
    distance = np.where(values >= values.max() - 1e-12, np.abs(thresholds - DEFAULT_THRESHOLD), np.inf)
    return float(thresholds[distance.argmin()])


def supported_threshold(
    probabilities: npt.NDArray[np.floating],
    positive: npt.NDArray[np.bool_],
    criterion: Callable[[Cuts], npt.NDArray[np.float64]],
) -> float:
    """Return the best threshold where it holds on images that it was not chosen on, else 0.5.

    In a stratified cross-validation each fold is called by the best threshold of the others. What that makes the
    criterion must beat what 0.5 makes it by more than the standard error (jackknife) of the difference: a threshold
    chosen on a dozen images follows single ones, and is worse than 0.5 on others.
    """
    chosen = best_threshold(probabilities, positive, criterion)
    if chosen == DEFAULT_THRESHOLD:
        return chosen
    fold = np.empty(len(positive), np.int64)
    for kind in (True, False):
        rows = np.flatnonzero(positive == kind)
        fold[rows] = np.arange(len(rows)) % _FOLDS
    tuned = np.empty(len(positive), bool)
    for number in range(_FOLDS):
        own, others = fold == number, fold != number
        tuned[own] = probabilities[own] >= best_threshold(probabilities[others], positive[others], criterion)
    default = probabilities >= DEFAULT_THRESHOLD
    gain = _reached(tuned, positive, criterion) - _reached(default, positive, criterion)
    return chosen if gain > _gain_error(tuned, default, positive, criterion) else DEFAULT_THRESHOLD


def _reached(
    called: npt.NDArray[np.bool_],
    positive: npt.NDArray[np.bool_],
    criterion: Callable[[Cuts], npt.NDArray[np.float64]],
) -> float:
    """Return the criterion's value for given predictions."""
    hits, false = np.array([(called & positive).sum()]), np.array([(called & ~positive).sum()])
    return float(criterion(Cuts(np.zeros(1), hits, false, int(positive.sum()), int((~positive).sum())))[0])


def _gain_error(
    tuned: npt.NDArray[np.bool_],
    default: npt.NDArray[np.bool_],
    positive: npt.NDArray[np.bool_],
    criterion: Callable[[Cuts], npt.NDArray[np.float64]],
) -> float:
    """Return the standard error of the difference of two predictions' criteria, by leaving out each image once.

    Images with the same truth and calls leave the same difference, so each of their kinds is left out once.
    """
    num, left = len(positive), []
    for kind in range(8):
        same = (positive == bool(kind & 1)) & (tuned == bool(kind & 2)) & (default == bool(kind & 4))
        if not same.any():
            continue
        kept = np.ones(num, bool)
        kept[np.flatnonzero(same)[0]] = False
        gain = _reached(tuned[kept], positive[kept], criterion) - _reached(default[kept], positive[kept], criterion)
        left.append((gain, int(same.sum())))
    mean = sum(gain * count for gain, count in left) / num
    total = sum((gain - mean) ** 2 * count for gain, count in left)
    return float(np.sqrt((num - 1) / num * total))


def _with_none(cut: Cuts) -> Cuts:
    """Add a cut above all scores, at which nothing is called positive."""
    scores, hits, false = np.append(np.inf, cut.scores), np.append(0, cut.hits), np.append(0, cut.false)
    return replace(cut, scores=scores, hits=hits, false=false)
