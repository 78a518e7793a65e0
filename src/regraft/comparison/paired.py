"""Two networks on the same images: which is better, by how much, and whether they may be taken for equal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from regraft.evaluation.metrics.paired import Z_90, difference_interval

__all__ = ["difference_interval", "holm", "mcnemar", "paired_shares"]

Bools = npt.NDArray[np.bool_]


def paired_shares(first: Bools, second: Bools, margin: float) -> dict[str, Any]:
    """Return the difference of two shares of right answers on the same images.

    Args:
        first: Whether the first network is right, of each image.
        second: Whether the second is.
        margin: Up to which difference they count as equal.

    Returns:
        `difference` (second - first) with its 95 % `interval`; `only_first` and `only_second`, how many images one
        alone gets right; `p`, of McNemar's exact test; `equal`, whether two one-sided tests (TOST) at 5 % say that the
        difference is within the margin.
    """
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    low, high = difference_interval(only_first, only_second, len(first), Z_90)
    return {
        "difference": (only_second - only_first) / len(first),
        "interval": list(difference_interval(only_first, only_second, len(first))),
        "only_first": only_first,
        "only_second": only_second,
        "p": mcnemar(only_first, only_second),
        "margin": margin,
        "equal": -margin < low and high < margin,
    }


def mcnemar(only_first: int, only_second: int) -> float:
    """Return the p-value of McNemar's exact test: images that one alone gets right fall to either side like coins."""
    num, fewer = only_first + only_second, min(only_first, only_second)
    if not num:
        return 1.0
    logs = [math.lgamma(num + 1) - math.lgamma(k + 1) - math.lgamma(num - k + 1) for k in range(fewer + 1)]
    tail = sum(math.exp(log - num * math.log(2)) for log in logs)
    return min(1.0, 2 * tail)


def holm(values: Sequence[float]) -> list[float]:
    """Return p-values corrected for how many there are (Holm 1979), in their order."""
    order = sorted(range(len(values)), key=lambda place: values[place])
    corrected, largest = [0.0] * len(values), 0.0
    for rank, place in enumerate(order):
        largest = max(largest, min(1.0, (len(values) - rank) * values[place]))
        corrected[place] = largest
    return corrected
