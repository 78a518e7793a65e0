"""Sets of classes that hold the true one as often as was asked for, whatever the network thinks of itself.

Split conformal prediction with the score 1 - probability of the class (LAC: Sadinle, Lei and Wasserman 2019), the one
with the smallest sets. Its limit comes from validation images with the correction for finite samples, so that the
promise holds for images from where those came from: on average over such draws, not for each class or each image.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from regraft.errors import SettingsError

__all__ = ["ROUNDING", "candidates", "most_coverage", "nonconformity", "score_limit"]

ROUNDING = 1e-6  # of a probability: the image that set the limit is inside it, whichever engine computes it
Floats = npt.NDArray[np.floating]


def nonconformity(probabilities: Floats, labels: npt.NDArray[np.integer]) -> Floats:
    """Return 1 - the probability of the true class of each image, ascending.

    Args:
        probabilities: (N, C).
        labels: (N,) class numbers.
    """
    return np.sort(1 - probabilities[np.arange(len(labels)), labels])


def most_coverage(num: int) -> float:
    """Return the largest coverage that so many validation images can promise."""
    return num / (num + 1)


def score_limit(scores: Floats, coverage: float) -> float:
    """Return up to which score a class belongs to the set.

    Args:
        scores: From `nonconformity`.
        coverage: The share of images whose true class is to be in their set.

    Raises:
        SettingsError: It is not a share below 1, or more than so few images can promise.
    """
    if not 0 < coverage < 1:
        raise SettingsError(
            f"Sets were asked for that hold the true class in {coverage:g} of the images.",
            "a share between 0 and 1",
            "`--sets 0.9`",
        )
    place = math.ceil((len(scores) + 1) * coverage - 1e-9)
    if place > len(scores):
        raise SettingsError(
            f"{len(scores)} validation images cannot promise that {coverage:g} of the sets hold the true class.",
            f"at most {math.floor(1000 * most_coverage(len(scores))) / 1000:g}",
            "ask for less, or validate on more images",
        )
    return float(scores[place - 1])


def candidates(probabilities: Floats, limit: float) -> list[int]:
    """Return the classes of one image's set, the most probable first; never empty.

    A network that is right more often than was asked for would leave sets empty; they have the most probable class
    instead, and hold the true one more often than was asked for.

    Args:
        probabilities: (C,).
        limit: From `score_limit`.
    """
    wide = probabilities.astype(np.float64)
    order = np.argsort(-probabilities, kind="stable")
    inside = [int(place) for place in order if 1 - wide[place] <= limit + ROUNDING]
    return inside or [int(order[0])]
