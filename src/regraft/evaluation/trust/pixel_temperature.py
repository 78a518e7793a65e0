"""The temperature of a network for masks, fitted on validation pixels of which none is kept.

Each image leaves one row: what some of its pixels, evenly over it, cost at each of many temperatures. The sum of all
rows has its minimum at the temperature; whether that is surely better than none is asked of whole images that it was
not fitted to, as pixels of one image say much the same.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from regraft.data.class_table import IGNORED
from regraft.models.describe.calibration import Calibration

__all__ = ["FEWEST_WITH_MASKS", "MOST_WITH_MASKS", "PixelTemperature", "evenly_over"]

FEWEST_WITH_MASKS = 10  # validation images
MOST_WITH_MASKS = 200  # that are looked at, evenly over the split
_PIXELS = 4096  # of each image
_STEPS = 20  # on either side of 1
_STEP = math.log(8) / _STEPS
_FOLDS = 5


class PixelTemperature:
    """What pixels cost at many temperatures, image by image."""

    def __init__(self) -> None:
        self._costs: list[Tensor] = []

    def take(self, logits: Tensor, truth: Tensor) -> None:
        """Add an image.

        Args:
            logits: (C, h, w), raw.
            truth: (h, w), class numbers; pixels of 255 count for nothing.
        """
        every = evenly_over(truth.numel(), _PIXELS)
        logits, truth = logits[:, ::every, ::every], truth[::every, ::every].to(logits.device)
        counted = truth != IGNORED
        values, places = logits[:, counted].double(), truth[counted].long()
        if not len(places):
            return
        own = values.gather(0, places[None])[0]
        costs = [float(((values / t).logsumexp(0) - own / t).sum()) for t in _temperatures()]
        self._costs.append(torch.tensor([*costs, float(len(places))], dtype=torch.float64))

    def fit(self) -> Calibration | None:
        """Return the temperature, 1 where none is surely better; None where there are too few images for one."""
        if len(self._costs) < FEWEST_WITH_MASKS:
            return None
        table = torch.stack(self._costs)
        if not bool(torch.isfinite(table).all()):
            return None
        costs, counts = table[:, :-1], table[:, -1]
        gains = _gains(costs)
        error = float(gains.std()) * math.sqrt(len(gains))
        temperature = _lowest(costs.sum(0) / counts.sum()) if float(gains.sum()) > error else 1.0
        return Calibration((float(f"{temperature:.5g}"),), len(counts))


def evenly_over(num: int, most: int) -> int:
    """Return the step along rows and columns at which so many pixels become about this many at most."""
    return max(1, math.ceil(math.sqrt(num / most)))


def _temperatures() -> list[float]:
    return [math.exp(place * _STEP) for place in range(-_STEPS, _STEPS + 1)]


def _gains(costs: Tensor) -> Tensor:
    """Return how much less the pixels of each image cost at the temperature that the other folds have."""
    fold = torch.arange(len(costs)) % _FOLDS
    gains = torch.zeros(len(costs), dtype=torch.float64)
    for number in range(_FOLDS):
        own = fold == number
        best = int(costs[~own].sum(0).argmin())
        gains[own] = costs[own, _STEPS] - costs[own, best]
    return gains


def _lowest(curve: Tensor) -> float:
    """Return the temperature at the minimum of a curve over the steps, between them by a parabola."""
    place = int(curve.argmin())
    if place in (0, len(curve) - 1):
        return math.exp((place - _STEPS) * _STEP)
    left, middle, right = curve[place - 1 : place + 2].tolist()
    bend = left - 2 * middle + right
    shift = 0.5 * (left - right) / bend if bend > 0 else 0.0
    return math.exp((place - _STEPS + shift) * _STEP)
