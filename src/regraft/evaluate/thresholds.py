"""From which probability on a name is given: chosen on validation images, 0.5 where they are too few to say."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from regraft.evaluate.scores import Cuts, cuts
from regraft.models.outputs import DEFAULT_THRESHOLD, threshold_names

__all__ = ["CRITERIA", "FEWEST", "best_threshold", "choose_thresholds"]

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
    """The threshold of each name that has one; none for an output that goes by the largest probability.

    Args:
        output: A key of `regraft.models.outputs.OUTPUTS`.
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
    return {
        name: best_threshold(probabilities[:, column], positive[:, column], criterion)
        for name, column in zip(names, columns, strict=True)
    }


def best_threshold(
    probabilities: npt.NDArray[np.floating],
    positive: npt.NDArray[np.bool_],
    criterion: Callable[[Cuts], npt.NDArray[np.float64]],
) -> float:
    """The threshold with the largest criterion, half-way between two probabilities, or 0.5 where that is as good.

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


def _with_none(cut: Cuts) -> Cuts:
    """With a cut above all scores, at which nothing is called positive."""
    scores, hits, false = np.append(np.inf, cut.scores), np.append(0, cut.hits), np.append(0, cut.false)
    return replace(cut, scores=scores, hits=hits, false=false)
