"""The classifier that statistics alone decide: a linear discriminant, in closed form.

Its covariance is the classes' common one, shrunk by the penalty that ridge regression of the classes on the features
would take by generalised cross-validation (Golub, Heath and Wahba, Technometrics 21, 1979), which needs no image.
Ridge regression itself, as in RanPAC (arXiv:2307.02251), reads the same sums and favours classes with many images.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from regraft.incremental.statistics import Statistics

__all__ = ["Discriminant", "solve"]

Wide = npt.NDArray[np.float64]
_STRENGTHS = 10.0 ** np.arange(-6, 3.01, 0.25)  # of the mean scatter of a feature


@dataclass(frozen=True, eq=False)
class Discriminant:
    """A linear classifier, and what leaves single images out of it again.

    Attributes:
        weight: float64 (classes, features).
        bias: float64 (classes,).
        strength: The penalty, as a share of the mean scatter of a feature over all images.
        means: The mean features of each class, float64 (classes, features).
        counts: Images of each class, int64 (classes,).
        precision: The inverse of the scatter within classes and the penalty, float64 (features, features).
        penalty: What was added to the diagonal of that scatter.
    """

    weight: Wide
    bias: Wide
    strength: float
    means: Wide
    counts: npt.NDArray[np.int64]
    precision: Wide
    penalty: float

    @property
    def freedom(self) -> float:
        """Effective number of features: the trace of the scatter within classes times its shrunk inverse."""
        return len(self.precision) - self.penalty * float(np.trace(self.precision))

    def scores(self, features: npt.NDArray[np.floating]) -> Wide:
        """Return the scores of images (images, classes): log-likelihoods, up to a number for each image."""
        scores: Wide = features.astype(np.float64) @ self.weight.T + self.bias
        return scores

    def scores_without(self, features: npt.NDArray[np.floating], labels: npt.NDArray[np.int64]) -> Wide:
        """Return for each image in the sums the scores of a classifier that was solved without it.

        Exact at the same penalty: without an image its class's mean moves, and the scatter loses a product of one
        vector (Sherman and Morrison). Not for images that are the only one of their class.
        """
        wide, rows = features.astype(np.float64), np.arange(len(labels))
        others = (self.counts[labels] - 1).astype(np.float64)
        away = wide - self.means[labels]
        turned, turned_away = wide @ self.precision, away @ self.precision
        own, cross = (turned_away * away).sum(1), (turned * away).sum(1)
        share = (others + 1) / others
        gain = (share / (1 - share * own).clip(min=1e-9))[:, None]
        of_image, of_away = turned @ self.means.T, turned_away @ self.means.T
        of_mean = np.tile(((self.means @ self.precision) * self.means).sum(1), (len(labels), 1))
        of_mean[rows, labels] += (own / others - 2 * of_away[rows, labels]) / others
        of_image[rows, labels] -= cross / others
        of_away[rows, labels] -= own / others
        scores = of_image + gain * cross[:, None] * of_away - (of_mean + gain * of_away**2) / 2
        scores *= int(self.counts.sum()) - 1
        left = np.tile(self.counts.astype(np.float64), (len(labels), 1))
        left[rows, labels] = others
        freedom = self.freedom - self.penalty * gain * (turned_away**2).sum(1, keepdims=True)
        corrected: Wide = scores + freedom / left / 2
        return corrected


def solve(statistics: Statistics) -> Discriminant:
    """Return the classifier, with the same prior for each class, however many images it has.

    A mean of few images is far from all images, their own class's too: its squared distance is too large by the
    variance of that mean, which the bias takes off. Without that, new classes with few images would hardly be named.
    """
    num, counts = statistics.num_images, statistics.counts
    means, centre = statistics.sums / counts[:, None], statistics.sums.sum(0) / num
    scatter = statistics.products - num * np.outer(centre, centre)
    strength, penalty = _penalty(statistics, scatter, centre)
    between = (means - centre) * np.sqrt(counts)[:, None]
    within = scatter - between.T @ between
    precision = np.linalg.inv(within + penalty * np.eye(len(within)))
    weight = num * means @ precision
    found = Discriminant(weight, -(weight * means).sum(1) / 2, strength, means, counts, precision, penalty)
    return replace(found, bias=found.bias + found.freedom / counts / 2)


def _penalty(statistics: Statistics, scatter: Wide, centre: Wide) -> tuple[float, float]:
    """Return the strength of the least generalised cross-validation error of ridge regression, and its penalty."""
    num, counts = statistics.num_images, statistics.counts
    eigenvalues, axes = np.linalg.eigh(scatter)
    eigenvalues = eigenvalues.clip(min=0)
    scale = max(float(eigenvalues.mean()), np.finfo(np.float64).tiny)
    targets = ((axes.T @ (statistics.sums - counts[:, None] * centre).T) ** 2).sum(1)
    spread = float(num - (counts**2).sum() / num)  # of the targets, around their mean

    def error(penalty: float) -> float:
        inverse = 1 / (eigenvalues + penalty)
        explained = float((targets * (inverse + penalty * inverse**2)).sum())
        freedom = num - 1 - float((eigenvalues * inverse).sum())
        return max(spread - explained, 0.0) / freedom**2 if freedom > 0 else float("inf")

    strength = float(_STRENGTHS[int(np.argmin([error(strength * scale) for strength in _STRENGTHS]))])
    return strength, strength * scale
