"""How many images there is time for, from what a few of them took."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch.nn import functional as F

__all__ = ["Cost", "affordable", "probe_seconds"]

_OBJECTIVES = 400  # that the solutions of all folds look at together, as of all images, about
_OF_SCORES = 3e-9  # seconds for a feature cubed: of the eigenvalues that both scores take
_ROWS = 512


class Cost(NamedTuple):
    """What a candidate takes on this machine.

    Attributes:
        pixels: What its images are decoded to; candidates of the same share them.
        decoding: Seconds of an image until it is decoded.
        each: Seconds of one through the network.
        fixed: Seconds of what does not depend on their number.
        width: How many features an image has.
        objective: Seconds of the probe, of an image.
    """

    pixels: str
    decoding: float
    each: float
    fixed: float
    width: int
    objective: float


def affordable(costs: Sequence[Cost], most: int, seconds: float, *, fewest: int) -> int:
    """Return how many images, from `fewest` to `most`, all candidates together take no longer than `seconds` for."""
    low, high = min(fewest, most), most
    if _total(costs, high) <= seconds:
        return high
    while low + 1 < high:
        middle = (low + high) // 2
        low, high = (middle, high) if _total(costs, middle) <= seconds else (low, middle)
    return low


def probe_seconds(width: int, num_classes: int) -> float:
    """Return the seconds that the probe takes for an image with so many features, as one step of its solver does."""
    matrix = torch.zeros(_ROWS, width, dtype=torch.float64)
    weight = torch.zeros(num_classes, width, dtype=torch.float64, requires_grad=True)
    labels = torch.zeros(_ROWS, dtype=torch.int64)
    took = []
    for _ in range(2):
        began = time.perf_counter()
        F.cross_entropy(F.linear(matrix, weight), labels).backward()  # type: ignore[no-untyped-call]
        took.append(time.perf_counter() - began)
    return _OBJECTIVES * min(took) / _ROWS


def _total(costs: Sequence[Cost], num: int) -> float:
    decoding = {cost.pixels: num * cost.decoding for cost in costs}
    return sum(decoding.values()) + sum(_of_candidate(cost, num) for cost in costs)


def _of_candidate(cost: Cost, num: int) -> float:
    width = min(num, cost.width)  # features are rotated to as many
    return cost.fixed + num * (cost.each + cost.objective * width / cost.width) + _OF_SCORES * width**3
