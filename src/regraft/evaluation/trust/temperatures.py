"""The temperatures of a network, fitted on validation images: one, or one for each class where that is better.

One number for all is Guo et al. 2017 (arXiv:1706.04599). It is 1, which leaves the network's own probabilities, unless
five-fold cross-validation says that images which the temperature does not know are told better, by more than a standard
error: a network that is right on all but two images of a thousand gives nothing to fit one to. A class has its own
where that is better once more, by two. What a class has few images for is pulled towards the temperature of all.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from regraft.evaluation.metrics.calibrated import best_temperature
from regraft.models.describe.calibration import Calibration

__all__ = ["FEWEST", "fit_calibration"]

FEWEST = 20  # validation images; below, a temperature would follow single ones
_LOWEST, _HIGHEST = 0.01, 100.0
_FOLDS = 5
_PULL = 50  # images of a class that weigh as much as the temperature of all
_FEWEST_OF_CLASS = 10  # images; of fewer, the temperature of all would weigh five times as much anyway
_ERRORS_OF_ONE, _ERRORS_OF_EACH = 1.0, 2.0  # standard errors of the gain that is asked for
_DIGITS = 5


def fit_calibration(output: str, logits: Tensor, targets: Tensor) -> Calibration | None:
    """Return the temperatures that make the cross-entropy of these images smallest.

    Args:
        output: A key of `regraft.models.describe.outputs.OUTPUTS`, of those that name images.
        logits: (N, C), raw.
        targets: (N,) class numbers, or (N, C) of 0 and 1.

    Returns:
        None where there are fewer than `FEWEST` images, or a logit is not finite.
    """
    if len(logits) < FEWEST or not bool(torch.isfinite(logits).all()):
        return None
    logits = logits.double().cpu()
    targets = targets.cpu() if output == "softmax" else targets.cpu().reshape(logits.shape)
    of_one, of_each = _gains(output, logits, targets)
    if not _is_sure(of_one, _ERRORS_OF_ONE) and not _is_sure(of_one + of_each, _ERRORS_OF_EACH):
        return Calibration((1.0,), len(logits))
    one = _one(output, logits, targets)
    if logits.shape[1] > 1 and _is_sure(of_each, _ERRORS_OF_EACH):
        each = _each(output, logits, targets, torch.arange(len(logits)), one)
        return Calibration(tuple(_rounded(value) for value in each), len(logits))
    return Calibration((_rounded(one),), len(logits))


def _is_sure(gain: Tensor, standard_errors: float) -> bool:
    return float(gain.mean()) > standard_errors * float(gain.std()) / math.sqrt(len(gain))


def _one(output: str, logits: Tensor, targets: Tensor) -> float:
    return min(max(best_temperature(logits, targets, sigmoid=output != "softmax"), _LOWEST), _HIGHEST)


def _each(output: str, logits: Tensor, targets: Tensor, rows: Tensor, one: float) -> list[float]:
    """Return a temperature for each class, from those rows in which it has the largest logit (or for each label)."""
    logits, targets = logits[rows], targets[rows]
    found = []
    for place in range(logits.shape[1]):
        if output == "multilabel":
            own = best_temperature(logits[:, place, None], targets[:, place, None], sigmoid=True)
            num = int(min(targets[:, place].sum(), (1 - targets[:, place].long()).sum()))
        else:
            chosen = logits.argmax(1) == place
            num = int(chosen.sum())
            own = best_temperature(logits[chosen], targets[chosen]) if num >= _FEWEST_OF_CLASS else one
        own = min(max(own, _LOWEST), _HIGHEST)
        weight = num / (num + _PULL)
        found.append(math.exp(weight * math.log(own) + (1 - weight) * math.log(one)))
    return found


def _gains(output: str, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return, for each image, how much less it costs by one temperature, and how much less again by each class's own.

    They are fitted on the other folds.
    """
    order = torch.arange(len(logits)) if output == "multilabel" else targets.flatten().long().argsort(stable=True)
    fold = torch.empty(len(logits), dtype=torch.int64)
    fold[order] = torch.arange(len(logits)) % _FOLDS
    of_one, of_each = torch.zeros(2, len(logits), dtype=torch.float64)
    for number in range(_FOLDS):
        own, others = (fold == number).nonzero()[:, 0], (fold != number).nonzero()[:, 0]
        one = _one(output, logits[others], targets[others])
        each = _each(output, logits, targets, others, one)
        raw, by_one, by_each = (
            _costs(output, logits[own], targets[own], values) for values in ((1.0,), (one,), tuple(each))
        )
        of_one[own], of_each[own] = raw - by_one, by_one - by_each
    return of_one, of_each


def _costs(output: str, logits: Tensor, targets: Tensor, temperatures: Sequence[float]) -> Tensor:
    calibrated = Calibration(tuple(temperatures), len(logits))(logits, output)
    if output == "softmax":
        return F.cross_entropy(calibrated, targets.long(), reduction="none")
    return F.binary_cross_entropy_with_logits(calibrated, targets.double(), reduction="none").mean(1)


def _rounded(value: float) -> float:
    """Return five significant digits: the last bits differ from machine to machine, and say nothing."""
    return float(f"{value:.{_DIGITS}g}")
