"""One temperature that turns the scores of a classifier into probabilities."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from regraft.incremental.discriminant import Discriminant
from regraft.incremental.sample import Sample

__all__ = ["UNKNOWN_TEMPERATURE", "temperature_of"]

UNKNOWN_TEMPERATURE = 1.0  # where there is nothing to choose it by
_FIRST, _LAST, _NUM = -6.0, 9.0, 61  # exponents of e
_GOLDEN = (5**0.5 - 1) / 2

Wide = npt.NDArray[np.float64]


def temperature_of(classifier: Discriminant, sample: Sample) -> float:
    """Return the temperature of the least cross-entropy on images that the scores do not know.

    Images of the sample that are in the sums are scored without themselves; validation images never were in them. An
    image that is the only one of its class says nothing. Each class counts alike, however many of its images are in the
    sample. As in Platt scaling, a sample of n images stands for one wrong answer in n + 2, so that a few right ones do
    not make the classifier certain of everything.
    """
    sample = sample.take(~sample.counted | (classifier.counts[sample.labels] > 1))
    num, num_classes = len(sample), len(classifier.bias)
    if not num or num_classes < 2:
        return UNKNOWN_TEMPERATURE
    scores, own = classifier.scores(sample.features), sample.counted
    scores[own] = classifier.scores_without(sample.features[own], sample.labels[own])
    weights = 1 / np.bincount(sample.labels)[sample.labels]
    doubt = 1 / (num + 2)
    targets = np.full(scores.shape, doubt / (num_classes - 1))
    targets[np.arange(num), sample.labels] = 1 - doubt
    targets *= (weights / weights.sum())[:, None]

    def loss(exponent: float) -> float:
        return _cross_entropy(scores / np.exp(exponent), targets)

    grid = np.linspace(_FIRST, _LAST, _NUM)
    place = int(np.argmin([loss(exponent) for exponent in grid]))
    low, high = grid[max(0, place - 1)], grid[min(_NUM - 1, place + 1)]
    while high - low > 1e-9:  # golden section: the loss is convex in the reciprocal, so there is one minimum
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        low, high = (low, right) if loss(left) < loss(right) else (left, high)
    return float(np.exp((low + high) / 2))


def _cross_entropy(logits: Wide, targets: Wide) -> float:
    shifted = logits - logits.max(1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return -float((targets * log_probabilities).sum())
