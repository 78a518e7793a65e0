"""Whether probabilities mean what they say: of the images given 80 %, are 80 % right?

ECE is the mean distance between confidence and share of right answers over 15 bins of equal width (Naeini et al.
2015). It is never 0: with few images the shares are off by chance. What a network whose every probability were exact
would show with these very confidences is drawn at random beside it (Bröcker and Smith 2007).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from regraft.wording import wilson_interval

__all__ = ["calibration_error", "reliability"]

Floats = npt.NDArray[np.float64]
_BINS, _SHOWN_BINS = 15, 10
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
        one probability), `ece`, `ece_by_chance` (mean and 95 % quantile of what exact probabilities would show) and
        `bins`, a list of `low`, `high`, `num`, `confidence`, `share`, `interval`.
    """
    confidence, right = _answers(output, probabilities.astype(np.float64), labels)
    noise = np.random.default_rng(_SEED)
    drawn = [calibration_error(confidence, noise.random(len(confidence)) < confidence) for _ in range(_DRAWS)]
    return {
        **_scores(output, probabilities.astype(np.float64), labels),
        "ece": calibration_error(confidence, right),
        "ece_by_chance": [float(np.mean(drawn)), float(np.quantile(drawn, 0.95))],
        "bins": _bins(confidence, right),
    }


def calibration_error(confidence: Floats, right: npt.NDArray[np.bool_]) -> float:
    """Return the expected calibration error of confidences (N,) and whether each was right (N,)."""
    place = np.minimum((confidence * _BINS).astype(np.int64), _BINS - 1)
    difference = np.bincount(place, weights=confidence - right, minlength=_BINS)
    return float(np.abs(difference).sum() / len(confidence))


def _answers(
    output: str, probabilities: Floats, labels: npt.NDArray[np.integer]
) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Return a confidence for each answer, and whether it was right."""
    if output == "softmax":
        return probabilities.max(1), probabilities.argmax(1) == labels
    if output == "binary":
        return probabilities[:, 1], labels == 1
    return probabilities.ravel(), labels.ravel() != 0


def _scores(output: str, probabilities: Floats, labels: npt.NDArray[np.integer]) -> dict[str, float]:
    if output == "softmax":
        own = probabilities[np.arange(len(labels)), labels]
        brier = (probabilities**2).sum(1) - 2 * own + 1
        return {"nll": float(-np.log(np.maximum(own, _SMALLEST)).mean()), "brier": float(brier.mean())}
    shares, there = _answers(output, probabilities, labels)
    own = np.where(there, shares, 1 - shares)
    return {"nll": float(-np.log(np.maximum(own, _SMALLEST)).mean()), "brier": float(((1 - own) ** 2).mean())}


def _bins(confidence: Floats, right: npt.NDArray[np.bool_]) -> list[dict[str, Any]]:
    place = np.minimum((confidence * _SHOWN_BINS).astype(np.int64), _SHOWN_BINS - 1)
    found = []
    for number in np.unique(place).tolist():
        rows = place == number
        num, share = int(rows.sum()), float(right[rows].mean())
        found.append(
            {
                "low": number / _SHOWN_BINS,
                "high": (number + 1) / _SHOWN_BINS,
                "num": num,
                "confidence": float(confidence[rows].mean()),
                "share": share,
                "interval": list(wilson_interval(share, num)),
            }
        )
    return found
