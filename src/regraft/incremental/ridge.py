"""The classifier that statistics alone decide: ridge regression of the classes on the features, in closed form.

The strength is chosen by generalised cross-validation (Golub, Heath and Wahba, Technometrics 21, 1979), which needs no
image either. Closed-form classifiers on the features of a network that stays as it is: RanPAC, arXiv:2307.02251.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from regraft.incremental.statistics import Statistics

__all__ = ["Ridge", "solve_ridge"]

Wide = npt.NDArray[np.float64]
_STRENGTHS = 10.0 ** np.arange(-6, 3.01, 0.25)  # of the mean variance of a feature


@dataclass(frozen=True, eq=False)
class Ridge:
    """A linear classifier, and what leaves single images out of it again.

    Attributes:
        weight: float64 (classes, features).
        bias: float64 (classes,).
        strength: The penalty on the squared weights, as a share of the mean variance of a feature over all images.
        centre: The mean of the features.
        axes: The eigenvectors of the scatter, in columns, float64 (features, features).
        inverse: 1 / (eigenvalue + penalty) of each.
        num_images: Images in the sums.
    """

    weight: Wide
    bias: Wide
    strength: float
    centre: Wide
    axes: Wide
    inverse: Wide
    num_images: int

    def scores(self, features: npt.NDArray[np.floating]) -> Wide:
        """Return the scores of images (images, classes): near 1 for their class, near 0 for others."""
        scores: Wide = features.astype(np.float64) @ self.weight.T + self.bias
        return scores

    def scores_without(self, features: npt.NDArray[np.floating], labels: npt.NDArray[np.int64]) -> Wide:
        """Return for each image in the sums the scores of a classifier that was solved without it.

        Exact for ridge regression: the residual of an image divided by 1 less its leverage (Allen's PRESS).
        """
        turned = (features.astype(np.float64) - self.centre) @ self.axes
        leverage = (1 / self.num_images + (turned**2 @ self.inverse)).clip(max=1 - 1e-6)[:, None]
        truth = np.eye(len(self.bias))[labels]
        left_out: Wide = (self.scores(features) - leverage * truth) / (1 - leverage)
        return left_out


def solve_ridge(statistics: Statistics) -> Ridge:
    """Return the classifier at the strength of the least generalised cross-validation error.

    The intercept is not penalised.
    """
    num, counts = statistics.num_images, statistics.counts
    centre, shares = statistics.sums.sum(0) / num, counts / num
    scatter = statistics.products - num * np.outer(centre, centre)
    eigenvalues, axes = np.linalg.eigh(scatter)
    eigenvalues = eigenvalues.clip(min=0)
    targets = axes.T @ (statistics.sums - counts[:, None] * centre).T
    scale = max(float(eigenvalues.mean()), np.finfo(np.float64).tiny)
    spread = float(num - num * (shares**2).sum())  # of the targets, around their mean
    errors = [_error(eigenvalues, targets, strength * scale, spread, num) for strength in _STRENGTHS]
    strength = float(_STRENGTHS[int(np.argmin(errors))])
    inverse = 1 / (eigenvalues + strength * scale)
    weight = (axes @ (targets * inverse[:, None])).T
    return Ridge(weight, shares - weight @ centre, strength, centre, axes, inverse, num)


def _error(eigenvalues: Wide, targets: Wide, penalty: float, spread: float, num: int) -> float:
    """Return the generalised cross-validation error at a penalty."""
    inverse = 1 / (eigenvalues + penalty)
    explained = float(((targets**2).sum(1) * (inverse + penalty * inverse**2)).sum())
    freedom = num - 1 - float((eigenvalues * inverse).sum())
    return num * max(spread - explained, 0.0) / freedom**2 if freedom > 0 else float("inf")
