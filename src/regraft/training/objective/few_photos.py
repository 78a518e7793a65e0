"""The strength of a head's regularisation where photos are few: by cross-validation over the images it is solved on.

Strong penalties pull a head towards one that tells classes apart by their mean features, which is as much as a few
photos say; how strong is best, a few validation images cannot tell.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from regraft.data.split import folds
from regraft.evaluation.metrics.calibrated import calibrated_losses
from regraft.training.objective.lbfgs import STRENGTHS, Solution, solve_head
from regraft.training.objective.losses import Loss

__all__ = ["STRENGTHS_FOR_FEW", "Choice", "are_few", "choose_strength"]

STRENGTHS_FOR_FEW = (300.0, 100.0, 30.0, 10.0, 3.0, *STRENGTHS[:5])
_WITHOUT_FOLDS = 3.0  # with one image of each class all strengths classify alike
_FEW = 20  # images of a class, in the mean
_MOST_ROWS = 1000  # more of them take long to cross-validate, and tell strengths apart by validation
_NUM_FOLDS = 5


@dataclass(frozen=True)
class Choice:
    """A strength of regularisation, and what it was chosen by.

    Attributes:
        strength: As of `Solution`: the best one's sum over the images of a fold, for each of all images.
        best: The one with the lowest loss in the folds.
        num_folds: Of the cross-validation; 0 where each class has one image, and none is possible.
        losses: The cross-validated loss at the best temperature, by strength.
    """

    strength: float
    best: float
    num_folds: int
    losses: Mapping[float, float]


def are_few(labels: Tensor, num_classes: int) -> bool:
    """Return whether a head that has one label for each image is solved on few of them."""
    return labels.ndim == 1 and len(labels) <= min(_FEW * num_classes, _MOST_ROWS)


def choose_strength(
    features: Tensor, labels: Tensor, num_rows: int, loss: Loss, *, seed: int, adjustment: Tensor | None = None
) -> Choice:
    """Return the best strength of regularisation by cross-validation, each class spread evenly over the folds.

    Args:
        features: (N, D), any precision.
        labels: (N,) int64.
        num_rows: Rows of the classifier; one for two classes.
        loss: As of `solve_head`.
        seed: Of the folds.
        adjustment: What that loss adds to the logits.
    """
    counts = torch.bincount(labels.cpu())
    num_folds = min(_NUM_FOLDS, int(counts.max()))
    if num_folds < 2:
        return Choice(_WITHOUT_FOLDS, _WITHOUT_FOLDS, 0, {})
    fold = torch.from_numpy(folds(labels.cpu().numpy().astype(np.int64), num_folds, seed)).to(labels.device)
    held_out: dict[float, list[Tensor]] = {strength: [] for strength in STRENGTHS_FOR_FEW}
    targets = []
    for number in range(num_folds):
        out = fold == number
        kept = features[~out], labels[~out]
        for solution in solve_head(*kept, num_rows, loss, strengths=STRENGTHS_FOR_FEW):
            held_out[solution.strength].append(_logits(features[out], solution, adjustment))
        targets.append(labels[out])
    losses = {strength: _loss(torch.cat(parts), torch.cat(targets)) for strength, parts in held_out.items()}
    best = min(losses, key=lambda strength: losses[strength])
    num_solved = len(labels) - sum(map(len, targets)) / num_folds  # images that the head of a fold was solved on
    return Choice(best * num_solved / len(labels), best, num_folds, losses)


def _logits(features: Tensor, solution: Solution, adjustment: Tensor | None) -> Tensor:
    logits = F.linear(features.float(), solution.weight, solution.bias)
    return logits if adjustment is None else logits + adjustment.to(logits)


def _loss(logits: Tensor, targets: Tensor) -> float:
    is_binary = logits.shape[1] == 1
    targets = targets.unsqueeze(1).to(logits.dtype) if is_binary else targets
    return float(calibrated_losses(logits.cpu(), targets.cpu(), sigmoid=is_binary).mean())
