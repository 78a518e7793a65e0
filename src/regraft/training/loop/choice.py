"""Which network a run delivers: of each stage its best epoch, and of these one, with the noise of the images known."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from regraft.training.checkpoint.state import Best, Progress
from regraft.training.objective.schedule import is_better

__all__ = ["Lead", "better_epoch", "choose", "difference", "is_as_good", "lead_of", "safest", "take_in"]

_QUANTILE = 1.96  # of the normal distribution: two-sided 95 %
_MANY = 200  # images; the best of several networks on fewer is often a lucky one


class Lead(NamedTuple):
    """By how much a network is better than another on the same images: the mean, and its 95 % interval."""

    mean: float
    low: float
    high: float

    @classmethod
    def over(cls, leads: npt.NDArray[np.floating]) -> Lead:
        """Return the mean of the differences of single images, and its interval."""
        mean, half = float(leads.mean()), _QUANTILE * float(leads.std(ddof=1)) / math.sqrt(len(leads))
        return cls(mean, mean - half, mean + half)

    @property
    def error(self) -> float:
        """The standard error of the mean."""
        return (self.high - self.low) / (2 * _QUANTILE)

    @property
    def is_real(self) -> bool:
        """Whether chance alone would hardly make it: the interval excludes 0."""
        return self.low > 0


def better_epoch(best: Best | None, epoch: Best, mode: str) -> Best | None:
    """Return the better of the best epoch so far and a new one, as Keras's ModelCheckpoint(save_best_only=True)
    decides.

    Ties keep the earlier one. Unlike there, an epoch whose value is NaN is never the best, not even the first.
    """
    if math.isnan(epoch.value):
        return best
    return epoch if is_better(epoch.value, best.value if best is not None else None, mode) else best


def take_in(
    progress: Progress,
    epoch: Best,
    mode: str,
    *,
    is_solved: bool,
    thresholds: Mapping[str, float] | None = None,
    losses: str = "",
    interpolated: Collection[str] = (),
) -> bool:
    """Update the choice with a validated epoch; returns whether it is the best of its stage so far.

    What validation cannot tell apart, training has made no worse, so the later epoch counts; of the solutions of a
    head, which are no epochs, the best value does.

    Args:
        progress: Where the run stands; its `bests`, `lowest`, `best` and `last` are updated.
        epoch: The epoch, by the weights that it ended with.
        mode: `min` or `max`.
        is_solved: Whether it is a solution of a head.
        thresholds: Those of its validation.
        losses: Of each validation image, where they are compared (`Best.losses`).
        interpolated: As for `choose`.
    """
    progress.last = replace(epoch, thresholds=dict(thresholds or {}))
    candidate = replace(progress.last, losses=losses)
    others = [best for best in progress.bests if best.stage != epoch.stage]
    lowest = progress.lowest or next((best for best in progress.bests if best.stage == epoch.stage), None)
    is_lowest = better_epoch(lowest, candidate, mode) is candidate
    progress.lowest = candidate if is_lowest else lowest
    is_best = is_lowest or (lowest is not None and not is_solved and is_as_good(lowest, candidate))
    if is_best:
        progress.bests = [*others, candidate]
    progress.best = choose(progress.bests, mode, interpolated)
    return is_best


def choose(bests: Sequence[Best], mode: str, interpolated: Collection[str] = ()) -> Best | None:
    """Return the network to deliver, of the best one of each stage in order.

    A later stage is taken when it is better, and an earlier one only when its lead is real: what a later one has learnt
    is not given up for the luck of some images. Where no losses of single images are known, the best value counts.

    Args:
        bests: The best of each stage.
        mode: `min` or `max`.
        interpolated: Names of stages that end with the best network between their start and their end. The start is one
            of those, so such a stage is taken only when it is better; on fewer than 200 images by more than a standard
            error, as what is best of many networks there is better by luck too (`safest`).
    """
    best: Best | None = None
    for epoch in bests:
        if best is None or epoch.stage not in interpolated or safest(best, [epoch], mode) is epoch:
            best = better_epoch(best, epoch, mode)
    if best is None:
        return None
    later = [other for other in bests[bests.index(best) + 1 :] if other.stage not in interpolated]
    as_good = [other for other in later if is_as_good(best, other)]
    return as_good[-1] if as_good else best


def safest(start: Best, others: Sequence[Best], mode: str) -> Best:
    """Return the network with the best value; where images are fewer than 200, the one that is most surely better.

    That is the one whose lead over the start, less its standard error, is the largest: 0 for the start itself. A
    network near the start has a small lead and a small error, so few images keep the choice near it.

    Args:
        start: The network that is there already.
        others: Those that could take its place, in order.
        mode: `min` or `max`.
    """
    leads = {id(other): lead_of(other, start) for other in others}
    best, most = start, 0.0
    for other in others:
        lead = leads[id(other)]
        if lead is None or len(start.of_images) >= _MANY:
            best = better_epoch(best, other, mode) or best
        elif lead.mean - lead.error > most:
            best, most = other, lead.mean - lead.error
    return best


def is_as_good(best: Best, later: Best) -> bool:
    """Return whether the best network is ahead of a later one by no more than noise; False where that is not known."""
    lead = lead_of(best, later)
    return lead is not None and not lead.is_real


def difference(epoch: Best, other: Best) -> float | None:
    """Return by how much the losses of two networks differ on an image (root mean square); None where unknown."""
    ours, theirs = epoch.of_images, other.of_images
    if not len(ours) or len(ours) != len(theirs):
        return None
    return float(np.sqrt(np.mean(np.square(theirs - ours))))


def lead_of(epoch: Best, other: Best) -> Lead | None:
    """Return the other epoch's loss minus this one's, paired by image; None where it is unknown."""
    ours, theirs = epoch.of_images, other.of_images
    if not len(ours) or len(ours) != len(theirs):
        return None
    leads = theirs - ours
    leads = leads[np.isfinite(leads)]
    return None if len(leads) < 2 else Lead.over(leads)
