"""The strength of a head's regularisation where photos are few: by cross-validation over the images it is solved on.

Photos are few with 20 a class; and validation images with fewer than 200, which cannot tell strengths apart.

Strong penalties pull a head towards one that tells classes apart by their mean features, which is as much as a few
photos say; how strong is best, a few validation images cannot tell.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

from regraft.data.groups.units import fold_units
from regraft.data.split import folds
from regraft.evaluation.metrics.calibrated import calibrated_losses
from regraft.training.objective.lbfgs import STRENGTHS, Solution, solve_head
from regraft.training.objective.losses import Loss

__all__ = ["STRENGTHS_FOR_FEW", "Choice", "are_few", "are_few_to_choose_by", "choose_strength"]

STRENGTHS_FOR_FEW = (300.0, 100.0, 30.0, 10.0, 3.0, *STRENGTHS[:5])
_STRENGTHS = (10.0, 3.0, *STRENGTHS[:9])
_WITHOUT_FOLDS = 3.0  # with one image of each class all strengths classify alike
_FEW = 20  # images of a class, in the mean
_MOST_ROWS = 1000  # more of them take long to cross-validate, and tell strengths apart by validation
_NUM_FOLDS = 5
_FEW_TO_CHOOSE_BY = 200  # validation images
_NUM_WORSE = 2  # weaker strengths in a row, after which the others are left out, where images are not few


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


def are_few_to_choose_by(labels: Tensor, num_val: int) -> bool:
    """Return whether a head that has one label for each image has too few validation images to be chosen by."""
    return labels.ndim == 1 and num_val < _FEW_TO_CHOOSE_BY


def choose_strength(
    features: Tensor,
    labels: Tensor,
    num_rows: int,
    loss: Loss,
    *,
    seed: int,
    adjustment: Tensor | None = None,
    few: bool = True,
    groups: npt.NDArray[np.int64] | None = None,
) -> Choice:
    """Return the best strength of regularisation by cross-validation, each class spread evenly over the folds.

    Of more than 1,000 images as many are taken as make about 1,000.

    Args:
        features: (N, D), any precision.
        labels: (N,) int64.
        num_rows: Rows of the classifier; one for two classes.
        loss: As of `solve_head`.
        seed: Of the folds.
        adjustment: What that loss adds to the logits.
        few: Whether images are few (`are_few`); else weaker strengths are tried too, while they help.
        groups: (N,), the number of each image's group, which the folds keep whole; None where nothing was said.
    """
    num_all = len(labels)
    if not few and num_all > _MOST_ROWS:
        parts = folds(labels.cpu().numpy().astype(np.int64), -(-num_all // _MOST_ROWS), seed)
        kept_rows = torch.from_numpy(parts == 0).to(labels.device)
        groups = None if groups is None else groups[parts == 0]
        features, labels = features[kept_rows], labels[kept_rows]
    strengths = STRENGTHS_FOR_FEW if few else _STRENGTHS
    of_row = _folds(labels.cpu().numpy().astype(np.int64), groups, seed)
    num_folds = int(of_row.max()) + 1
    if num_folds < 2:
        return Choice(_WITHOUT_FOLDS, _WITHOUT_FOLDS, 0, {})
    fold = torch.from_numpy(of_row).to(labels.device)
    solving, targets = [], []
    for number in range(num_folds):
        out = fold == number
        solutions = solve_head(features[~out], labels[~out], num_rows, loss, strengths=strengths)
        solving.append((features[out], solutions))
        targets.append(labels[out])
    losses: dict[float, float] = {}
    worse = 0
    for strength in strengths:  # of all folds together, each from the solution before
        logits = [_logits(held_out, next(solutions), adjustment) for held_out, solutions in solving]
        losses[strength] = _loss(torch.cat(logits), torch.cat(targets))
        worse = 0 if losses[strength] <= min(losses.values()) else worse + 1
        if not few and worse >= _NUM_WORSE:
            break
    best = min(losses, key=lambda strength: losses[strength])
    num_solved = len(labels) - sum(map(len, targets)) / num_folds  # images that the head of a fold was solved on
    return Choice(best * num_solved / num_all, best, num_folds, losses)


def _folds(labels: npt.NDArray[np.int64], groups: npt.NDArray[np.int64] | None, seed: int) -> npt.NDArray[np.int64]:
    """Return the fold of each image; -1 for all of them where no two folds are possible."""
    if groups is not None:
        return fold_units(groups, labels, _NUM_FOLDS, seed=seed)
    num = min(_NUM_FOLDS, int(np.bincount(labels).max()))
    return np.full(len(labels), -1) if num < 2 else folds(labels, num, seed)


def _logits(features: Tensor, solution: Solution, adjustment: Tensor | None) -> Tensor:
    logits = F.linear(features.float(), solution.weight, solution.bias)
    return logits if adjustment is None else logits + adjustment.to(logits)


def _loss(logits: Tensor, targets: Tensor) -> float:
    is_binary = logits.shape[1] == 1
    targets = targets.unsqueeze(1).to(logits.dtype) if is_binary else targets
    return float(calibrated_losses(logits.cpu(), targets.cpu(), sigmoid=is_binary).mean())
