"""Whether the probabilities of pixels mean what they say, image by image: of no pixel anything is kept.

Pixels of one image are right or wrong together, so that chance is told by the images alone: the intervals are over
these, and what exact probabilities would show, were every pixel a draw of its own, is not given.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from regraft.data.class_table import IGNORED
from regraft.evaluation.trust.intervals import FEWEST, resampled
from regraft.evaluation.trust.pixel_temperature import evenly_over
from regraft.evaluation.trust.reliability import BINS, SHOWN_BINS, score_intervals
from regraft.models.segment.tiles import Strip

__all__ = ["PixelReliability"]

Floats = npt.NDArray[np.float64]
_PIXELS = 50_000  # of each image, evenly over it
_FINE = 30  # bins that make up both those of ECE and those that are shown
_SMALLEST = float(np.finfo(np.float32).tiny)


class PixelReliability:
    """Sums over the pixels of each image.

    Args:
        temperature: That the probabilities were computed with, from which those without it follow; None where they are
            told as the network gives them, or are means of several.
    """

    def __init__(self, temperature: float | None) -> None:
        self._temperature = temperature
        self._told: list[Floats] = []
        self._raw: list[Floats] = []

    def begin(self) -> None:
        """Begin with an image."""
        self._told.append(np.zeros((_FINE, 5)))
        self._raw.append(np.zeros((_FINE, 5)))

    def take(self, strip: Strip, truth: npt.NDArray[np.uint8]) -> None:
        """Add rows of the image.

        Args:
            strip: Their probabilities.
            truth: The mask of the whole image, (H, W).
        """
        every = evenly_over(truth.size, _PIXELS)
        first = -strip.top % every  # the rows of the whole image that count are every so many
        probabilities = strip.probabilities[:, first::every, ::every]
        wanted = torch.from_numpy(truth[strip.top : strip.top + strip.probabilities.shape[1]][first::every, ::every])
        counted = wanted != IGNORED
        shares, places = probabilities[:, counted].double(), wanted[counted].long()
        if not len(places):
            return
        self._told[-1] += _sums(shares, places)
        if self._temperature is not None:
            raw = (shares.clamp(min=_SMALLEST).log() * self._temperature).softmax(0)
            self._raw[-1] += _sums(raw, places)

    def compute(self) -> dict[str, Any]:
        """Return `told` and, where there is a temperature, `raw`, each with what `reliability` gives but for chance."""
        found = {"told": _measured(np.stack(self._told))}
        return found if self._temperature is None else {**found, "raw": _measured(np.stack(self._raw))}


def _sums(shares: Tensor, places: Tensor) -> Floats:
    """Return for each fine bin the number of pixels, and the sums of confidence, right ones, nats and squared errors.

    Args:
        shares: (C, n).
        places: (n,).
    """
    best, named = shares.max(0)
    own = shares.gather(0, places[None])[0]
    columns = (
        torch.ones_like(best),
        best,
        (named == places).double(),
        -own.clamp(min=_SMALLEST).log(),
        shares.square().sum(0) - 2 * own + 1,
    )
    bins = (best * _FINE).long().clamp(max=_FINE - 1)
    sums = torch.zeros(_FINE, len(columns), dtype=torch.float64)
    return np.asarray(sums.index_add_(0, bins, torch.stack(columns, 1)).numpy())


def _measured(sums: Floats) -> dict[str, Any]:
    """Return the figures of images, (N, fine bins, 5)."""
    sizes, totals = sums[..., 0].sum(1), sums.sum((0, 1))
    coarse = sums.reshape(len(sums), BINS, _FINE // BINS, 5).sum(2)
    gaps = coarse[..., 1] - coarse[..., 2]
    costs = {"nll": sums[..., 3].sum(1), "brier": sums[..., 4].sum(1)}
    return {
        "nll": float(totals[3] / totals[0]),
        "brier": float(totals[4] / totals[0]),
        "ece": float(np.abs(gaps.sum(0)).sum() / totals[0]),
        "num_pixels": int(totals[0]),
        "intervals": score_intervals(gaps, sizes, costs),
        "bins": _bins(sums.reshape(len(sums), SHOWN_BINS, _FINE // SHOWN_BINS, 5).sum(2)),
    }


def _bins(sums: Floats) -> list[dict[str, Any]]:
    """Return the bins that are shown, from (N, bins, 5)."""

    def shares(weights: Floats) -> Floats:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray((weights @ sums[..., 2]) / (weights @ sums[..., 0]))

    limits = resampled(len(sums), shares, SHOWN_BINS) if len(sums) >= FEWEST else [None] * SHOWN_BINS
    found = []
    for number, (num, confidence, right) in enumerate(sums.sum(0)[:, :3].tolist()):
        if num:
            share = right / num
            place = {"low": number / SHOWN_BINS, "high": (number + 1) / SHOWN_BINS, "num": int(num)}
            told = {"confidence": confidence / num, "share": share, "interval": limits[number] or [share, share]}
            found.append({**place, **told})
    return found
