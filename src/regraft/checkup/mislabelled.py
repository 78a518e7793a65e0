"""Labels that the other images contradict, and images that belong to no class, from features alone."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

__all__ = ["Judged", "judge"]

Matrix = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

_STRENGTHS = (0.3, 0.1, 0.03, 0.01, 3e-3, 1e-3)  # of the penalty, by the mean variance of all directions together
_ROUNDS = 2  # in which images whose labels are contradicted no longer teach
_SURE = 0.35  # by how much another class leads a label that is called wrong
_FAR = 5.0  # robust standard deviations above the median distance
_NORMAL = 1.4826  # standard deviations of a normal distribution in a median absolute deviation


class Judged(NamedTuple):
    """What the other images say of each image.

    Attributes:
        margins: By how much the label's score leads that of the best other class, about -1 to 1: the lower, the less
            the others agree with it.
        doubts: What images are ranked by: the margin and the label's own score together, the most doubtful highest.
        suggested: The class with the best score.
        distances: From the nearest class, in robust standard deviations above the median.
    """

    margins: Matrix
    doubts: Matrix
    suggested: Labels
    distances: Matrix

    @property
    def suspects(self) -> Labels:
        """The images with a label that is probably wrong, the surest first."""
        order = np.argsort(-self.doubts, kind="stable")
        return order[self.margins[order] < -_SURE]

    @property
    def outliers(self) -> Labels:
        """The images that are far from every class, the farthest first."""
        order = np.argsort(-self.distances, kind="stable")
        return order[self.distances[order] > _FAR]


def judge(features: npt.NDArray[np.floating], labels: Labels) -> Judged:
    """Return what a classifier that was fit on all other images says of each image.

    The classifier is a ridge regression on the classes' indicators, of which the prediction for an image that is left
    out has a closed form (Allen, Technometrics 16, 1974): out-of-sample scores at the price of one decomposition. The
    penalty is that of the least squared error of these. Images that are contradicted do not teach in the rounds after;
    they are ranked by the first of these, in which more of what is rare still teaches.

    Args:
        features: (N, D), not all the same.
        labels: (N,), from 0; at least two classes with two images each.
    """
    places, targets = np.unique(labels, return_inverse=True)
    given = np.eye(len(places))[targets]
    matrix = _scaled(features)
    weights = np.ones(len(matrix))
    strength, scores = _best(matrix, given)
    doubts = _doubts(scores, targets)
    for turn in range(_ROUNDS):
        agreed = (_margins(scores, targets) > 0).astype(np.float64)
        if (given.T @ agreed < 1).any():
            break  # a class that all others contradict would be gone
        weights = agreed
        scores = _left_out(matrix, given, weights, strength)
        doubts = _doubts(scores, targets) if turn == 0 else doubts
    margins = _margins(scores, targets)
    return Judged(margins, doubts, places[scores.argmax(1)], _distances(matrix, targets, weights))


def _scaled(features: npt.NDArray[np.floating]) -> Matrix:
    """Return centred features (N, at most N), of a mean square of 1 over all directions together."""
    centred = np.asarray(features, dtype=np.float64)
    centred = centred - centred.mean(0)
    if centred.shape[0] < centred.shape[1]:
        values, vectors = np.linalg.eigh(centred @ centred.T)
        centred = vectors * np.sqrt(np.maximum(values, 0.0))
    return np.asarray(centred / np.sqrt((centred**2).sum(1).mean()))


def _best(matrix: Matrix, given: Matrix) -> tuple[float, Matrix]:
    """Return the penalty with the least error on images that are left out, and its scores."""
    values, vectors = np.linalg.eigh(matrix.T @ matrix)
    along = matrix @ vectors
    means = given.mean(0)
    inner, squares = along.T @ (given - means), along**2
    best, lowest, scores = _STRENGTHS[0], np.inf, given
    for strength in _STRENGTHS:
        shrunk = 1 / (np.maximum(values, 0) + strength * len(matrix))
        found = _without_itself(along @ (shrunk[:, None] * inner), squares @ shrunk + 1 / len(matrix), given - means)
        error = float(((found + means - given) ** 2).mean())
        if error < lowest:
            best, lowest, scores = strength, error, found + means
    return best, scores


def _left_out(matrix: Matrix, given: Matrix, weights: Matrix, strength: float) -> Matrix:
    """Return the scores of each image from a fit on the others, weighted."""
    total = weights.sum()
    centred, means = matrix - weights @ matrix / total, weights @ given / total
    weighted = weights[:, None] * centred
    products = centred.T @ weighted + strength * total * np.eye(matrix.shape[1])
    root = np.linalg.inv(np.linalg.cholesky(products))
    along = centred @ root.T
    fitted = along @ (along.T @ (weights[:, None] * (given - means)))
    leverage = weights * ((along**2).sum(1) + 1 / total)
    return np.asarray(_without_itself(fitted, leverage, given - means) + means)


def _without_itself(fitted: Matrix, leverage: Matrix, given: Matrix) -> Matrix:
    leverage = np.minimum(leverage, 1 - 1e-9)[:, None]
    return np.asarray((fitted - leverage * given) / (1 - leverage))


def _margins(scores: Matrix, targets: Labels) -> Matrix:
    rows = np.arange(len(scores))
    others = scores.copy()
    others[rows, targets] = -np.inf
    return np.asarray(scores[rows, targets] - others.max(1))


def _doubts(scores: Matrix, targets: Labels) -> Matrix:
    return np.asarray(-(_margins(scores, targets) + scores[np.arange(len(scores)), targets]))


def _distances(matrix: Matrix, targets: Labels, weights: Matrix) -> Matrix:
    """Return how far each image is from the nearest class, by the covariance within classes."""
    kept = weights > 0
    means = np.stack([matrix[kept & (targets == k)].mean(0) for k in range(int(targets.max()) + 1)])
    within = (matrix - means[targets])[kept]
    covariance = within.T @ within / len(within)
    covariance += np.trace(covariance) / len(covariance) * np.eye(len(covariance))
    root = np.linalg.inv(np.linalg.cholesky(covariance)).T
    images, centres = matrix @ root, means @ root
    squares = (images**2).sum(1)[:, None] - 2 * images @ centres.T + (centres**2).sum(1)
    found = np.sqrt(np.maximum(squares.min(1), 0.0))
    middle = np.median(found)
    spread = _NORMAL * np.median(np.abs(found - middle))
    return np.asarray((found - middle) / spread if spread > 0 else np.zeros(len(found)))
