"""Whether probabilities mean what they say: of the images given 80 %, are 80 % right?

ECE is the mean distance between confidence and share of right answers over 15 bins of equal width (Naeini et al.
2015). It is never 0: with few images the shares are off by chance. What a network whose every probability were exact
would show with these very confidences is drawn at random beside it (Bröcker and Smith 2007).

Resampled images are off by more than the images themselves, as chance is added twice; the interval of ECE is therefore
turned about its value (basic bootstrap), and begins at 0 where chance alone can explain it. It may lie below the value.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from regraft.evaluation.trust.intervals import FEWEST, resampled
from regraft.wording import wilson_interval

__all__ = ["BINS", "SHOWN_BINS", "calibration_error", "error_difference", "reliability", "score_intervals"]

Floats = npt.NDArray[np.float64]
BINS, SHOWN_BINS = 15, 10
_DRAWS, _SEED = 200, 20
_SMALLEST = float(np.finfo(np.float32).tiny)


def reliability(
    output: str, probabilities: npt.NDArray[np.floating], labels: npt.NDArray[np.integer]
) -> dict[str, Any]:
    """Return how far probabilities can be believed, as plain numbers ready for JSON.

    Args:
        output: `softmax`: the most probable class is right or not. `binary`: the second class is there or not.
            `multilabel`: each label is there or not.
        probabilities: (N, C).
        labels: (N,) class numbers, or (N, C) of 0 and 1.

    Returns:
        `nll` (mean cost in nats), `brier` (mean squared error: over all classes together of one class of many, else of
        one probability), `ece`, `ece_by_chance` (mean and 95 % quantile of what exact probabilities would show),
        `intervals` (of `nll`, `brier` and `ece`, over the images; none of fewer than ten) and `bins`, a list of `low`,
        `high`, `num`, `confidence`, `share`, `interval`.
    """
    exact: Floats = probabilities.astype(np.float64)
    confidence, right = _answers(output, exact, labels)
    costs = _costs(output, exact, labels)
    noise = np.random.default_rng(_SEED)
    drawn = [calibration_error(confidence, noise.random(len(confidence)) < confidence) for _ in range(_DRAWS)]
    error, by_chance = calibration_error(confidence, right), float(np.quantile(drawn, 0.95))
    gaps, ones = _gaps(confidence, right, len(labels)), np.ones(len(labels))
    return {
        **{name: float(own.mean()) for name, own in costs.items()},
        "ece": error,
        "ece_by_chance": [float(np.mean(drawn)), by_chance],
        "intervals": score_intervals(gaps, ones, costs, by_chance),
        "bins": _bins(confidence, right),
    }


def score_intervals(
    gaps: Floats, sizes: Floats, costs: Mapping[str, Floats], by_chance: float = 0.0
) -> dict[str, list[float]]:
    """Return the intervals of the calibration error and of mean costs, over images that count a random number of times.

    Args:
        gaps: (N, bins), confidence less right or not, summed over the answers of each image in each bin.
        sizes: (N,), how many answers each image has.
        costs: (N,) by name, summed over the answers of each image.
        by_chance: What exact probabilities may show; an error up to it says nothing against them.
    """
    if len(sizes) < FEWEST:
        return {}
    summed = np.stack(list(costs.values()), 1)

    def statistics(weights: Floats) -> Floats:
        num = np.maximum(weights @ sizes, 1)[:, None]
        return np.concatenate([np.abs(weights @ gaps).sum(1, keepdims=True), weights @ summed], 1) / num

    drawn, *others = resampled(len(sizes), statistics, gaps.shape[1] + len(costs))
    found = {name: limits for name, limits in zip(costs, others, strict=True) if limits}
    if drawn:
        error = float(np.abs(gaps.sum(0)).sum() / sizes.sum())
        low, high = (max(0.0, 2 * error - limit) for limit in reversed(drawn))
        found["ece"] = [0.0 if error <= by_chance else low, high]
    return found


def calibration_error(confidence: Floats, right: npt.NDArray[np.bool_]) -> float:
    """Return the expected calibration error of confidences (N,) and whether each was right (N,)."""
    place = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    difference = np.bincount(place, weights=confidence - right, minlength=BINS)
    return float(np.abs(difference).sum() / len(confidence))


def error_difference(
    first: Floats, second: Floats, labels: npt.NDArray[np.integer]
) -> tuple[float, list[float] | None]:
    """Return by how much the second calibration error is larger, and its interval by a paired bootstrap.

    Args:
        first: Probabilities (N, C).
        second: Others of the same images.
        labels: (N,) class numbers.
    """
    gaps = [_gaps(each.max(1), each.argmax(1) == labels, len(labels)) for each in (first, second)]
    errors = [float(np.abs(own.sum(0)).sum()) / len(labels) for own in gaps]
    difference = errors[1] - errors[0]
    if len(labels) < FEWEST:
        return difference, None

    def drawn(weights: Floats) -> Floats:
        one, other = (np.abs(weights @ own).sum(1) for own in gaps)
        return np.asarray((other - one) / np.maximum(weights.sum(1), 1))[:, None]

    (limits,) = resampled(len(labels), drawn, 2 * BINS)
    return difference, None if limits is None else [2 * difference - limit for limit in reversed(limits)]


def _answers(
    output: str, probabilities: Floats, labels: npt.NDArray[np.integer]
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Return a confidence for each answer, and whether it was right."""
    if output == "softmax":
        return probabilities.max(1), probabilities.argmax(1) == labels
    if output == "binary":
        return probabilities[:, 1], labels == 1
    return probabilities.ravel(), labels.ravel() != 0


def _costs(output: str, probabilities: Floats, labels: npt.NDArray[np.integer]) -> dict[str, Floats]:
    """Return what each image costs (N,), in nats and in squared errors; of several labels the mean over these."""
    if output == "softmax":
        own = probabilities[np.arange(len(labels)), labels]
        brier = (probabilities**2).sum(1) - 2 * own + 1
        return {"nll": -np.log(np.maximum(own, _SMALLEST)), "brier": brier}
    shares, there = _answers(output, probabilities, labels)
    own = np.where(there, shares, 1 - shares).reshape(len(labels), -1)
    return {"nll": -np.log(np.maximum(own, _SMALLEST)).mean(1), "brier": ((1 - own) ** 2).mean(1)}


def _gaps(confidence: Floats, right: npt.NDArray[np.bool_], num: int) -> Floats:
    """Return the mean gap of each of so many images in each bin; the answers of one image follow each other."""
    place = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    image = np.arange(len(confidence)) // (len(confidence) // num)
    gaps = np.bincount(image * BINS + place, weights=confidence - right, minlength=num * BINS)
    return gaps.reshape(num, BINS) * num / len(confidence)


def _bins(confidence: Floats, right: npt.NDArray[np.bool_]) -> list[dict[str, Any]]:
    place = np.minimum((confidence * SHOWN_BINS).astype(np.int64), SHOWN_BINS - 1)
    found = []
    for number in np.unique(place).tolist():
        rows = place == number
        num, share = int(rows.sum()), float(right[rows].mean())
        found.append(
            {
                "low": number / SHOWN_BINS,
                "high": (number + 1) / SHOWN_BINS,
                "num": num,
                "confidence": float(confidence[rows].mean()),
                "share": share,
                "interval": list(wilson_interval(share, num)),
            }
        )
    return found
