"""The probe: a linear classifier on fixed features, cross-validated, its L2 penalty chosen inside each fold."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional as F

from regraft.data.groups.units import fold_units
from regraft.data.split import folds
from regraft.training.objective.lbfgs import Solution, solve_head
from regraft.training.objective.losses import build_loss

__all__ = ["NUM_FOLDS", "Probe", "probe"]

Matrix = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

NUM_FOLDS = 5
_STRENGTHS = (1.0, 0.3, 0.1, 0.03, 0.01, 3e-3, 1e-3, 3e-4, 1e-4)  # from strong to weak
_MOST_STEPS = 50  # of the solver, for each penalty
_NUM_INNER = 4  # parts of a fold's training images, of which one says which penalty to take
_FEW_IMAGES = 0.1  # the penalty where there are too few images to choose it by
_NUM_WORSE = 2  # weaker penalties in a row that do not lower its loss


@dataclass(frozen=True)
class Probe:
    """What a cross-validated linear classifier says of each image that it did not train on.

    Attributes:
        is_right: Whether it names the image's class; NaN for an image that is in no fold.
        losses: Minus the log of the probability that it gives that class; NaN likewise.
        strengths: The penalty of each fold.
    """

    is_right: Matrix
    losses: Matrix
    strengths: tuple[float, ...]

    @property
    def num_images(self) -> int:
        """How many images were predicted."""
        return int(np.isfinite(self.losses).sum())

    @property
    def accuracy(self) -> float:
        """The share of those that were named rightly."""
        return float(np.nanmean(self.is_right))

    @property
    def log_loss(self) -> float:
        """The mean of their losses, in nats."""
        return float(np.nanmean(self.losses))

    def on(self, rows: Labels, num: int) -> Probe:
        """Return the same for `num` images of which these are the `rows`; NaN for the others."""
        spread = [np.full(num, np.nan) for _ in range(2)]
        spread[0][rows], spread[1][rows] = self.is_right, self.losses
        return Probe(spread[0], spread[1], self.strengths)


def probe(
    features: Matrix, labels: Labels, fold: Labels, num_classes: int, *, seed: int = 0, groups: Labels | None = None
) -> Probe:
    """Return the out-of-fold predictions of a multinomial logistic regression with an L2 penalty.

    Args:
        features: (N, D); rotated ones give the same, so that (N, N) is enough where D is larger.
        labels: (N,), from 0.
        fold: (N,), the fold that an image is predicted in; -1 for one that is trained on in all of them.
        num_classes: Rows of the classifier.
        seed: Of the division of a fold's training images.
        groups: (N,), the number of each image's group, which that division keeps whole; None where nothing was said.
    """
    is_right, losses = np.full(len(labels), np.nan), np.full(len(labels), np.nan)
    strengths = []
    for number in range(int(fold.max()) + 1):
        train, held = np.flatnonzero(fold != number), np.flatnonzero(fold == number)
        inner = _inner_folds(labels[train], None if groups is None else groups[train], seed)
        strength = _best_strength(features[train], labels[train], num_classes, inner)
        solution = next(_solutions(features[train], labels[train], num_classes, (strength,)))
        losses[held], is_right[held] = _of_images(solution, features[held], labels[held])
        strengths.append(strength)
    return Probe(is_right, losses, tuple(strengths))


def _inner_folds(labels: Labels, groups: Labels | None, seed: int) -> Labels:
    """Return the part of each image, of which the first says which penalty to take; -1 where there are too few."""
    if groups is not None:
        return fold_units(groups, labels, _NUM_INNER, seed=seed)
    counts = np.bincount(labels)
    num_spread = int(counts[counts > 1].sum())  # images that are not the only one of their class
    return np.full(len(labels), -1) if num_spread < _NUM_INNER else folds(labels, _NUM_INNER, seed)


def _best_strength(features: Matrix, labels: Labels, num_classes: int, inner: Labels) -> float:
    """Return the penalty with the lowest loss on a part of the images, fit on the others."""
    if inner.max() < 0:
        return _FEW_IMAGES
    train, held = np.flatnonzero(inner != 0), np.flatnonzero(inner == 0)
    best, lowest, worse = _FEW_IMAGES, np.inf, 0
    for solution in _solutions(features[train], labels[train], num_classes, _STRENGTHS):
        loss = float(_of_images(solution, features[held], labels[held])[0].mean())
        best, lowest, worse = (solution.strength, loss, 0) if loss < lowest else (best, lowest, worse + 1)
        if worse >= _NUM_WORSE:
            break
    return best


def _solutions(features: Matrix, labels: Labels, num_classes: int, strengths: Sequence[float]) -> Iterator[Solution]:
    given, loss = _tensors(features, labels), build_loss("softmax")
    return solve_head(*given, num_classes, loss, max_iterations=_MOST_STEPS, strengths=strengths)


def _of_images(solution: Solution, features: Matrix, labels: Labels) -> tuple[Matrix, Matrix]:
    """Return the loss of each image, and whether it is named rightly, 0 or 1."""
    given, targets = _tensors(features, labels)
    logits = F.linear(given, solution.weight.double(), solution.bias.double())
    losses = F.cross_entropy(logits, targets, reduction="none")
    return losses.numpy(), (logits.argmax(1) == targets).double().numpy()


def _tensors(features: Matrix, labels: Labels) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.from_numpy(features), torch.from_numpy(labels)
