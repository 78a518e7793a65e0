"""Two scores of how well features suit labels, without training: LogME and the H-score.

Both are the same for features that are rotated, and for labels that are renamed.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

__all__ = ["h_score", "ledoit_wolf_shrinkage", "log_me", "rotated"]

Matrix = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]

_RANK = 1e-12  # of the largest eigenvalue: below it, an eigenvalue is rounding
_MOST_STEPS = 100
_CLOSE = 1e-6  # relative change of the precisions at which they are found


def rotated(features: npt.NDArray[np.floating]) -> Matrix:
    """Return the features (N, D) as (N, min(N, D)) with the same inner products: nothing else is read of them here."""
    matrix = np.asarray(features, dtype=np.float64)
    if matrix.shape[0] >= matrix.shape[1]:
        return matrix
    values, vectors = np.linalg.eigh(matrix @ matrix.T)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0.0)))


def log_me(features: npt.NDArray[np.floating], labels: Labels) -> float:
    """Return LogME: the largest log evidence per image of a Bayesian linear regression on each class, their mean.

    You, Liu, Wang and Long, "LogME: Practical Assessment of Pre-trained Models for Transfer Learning", ICML 2021,
    arXiv:2102.11005, equation 2 and algorithm 1: for a class with targets y of 0 and 1, weights of precision alpha and
    noise of precision beta,

        log p(y | F) = n/2 log beta + D/2 log alpha - n/2 log 2 pi - beta/2 |F m - y|^2 - alpha/2 m'm - 1/2 log |A|,
        A = alpha I + beta F'F,  m = beta A^-1 F'y,

    which the fixed point alpha = gamma / m'm, beta = (n - gamma) / |F m - y|^2 maximises, where gamma is the sum of
    beta lambda / (alpha + beta lambda) over the eigenvalues lambda of F'F (MacKay, Neural Computation 4, 1992).

    Args:
        features: (N, D).
        labels: (N,), from 0.
    """
    matrix = rotated(features)
    values, vectors = np.linalg.eigh(matrix.T @ matrix)
    kept = values > _RANK * max(float(values[-1]), 1e-300)
    values = values[kept]
    targets = (labels[:, None] == np.unique(labels)).astype(np.float64)
    along = (vectors[:, kept].T @ (matrix.T @ targets)) / np.sqrt(values)[:, None]  # in the directions of F's columns
    beyond = np.maximum((targets**2).sum(0) - (along**2).sum(0), 0.0)
    found = [_evidence(values, along[:, k] ** 2, float(beyond[k]), len(matrix)) for k in range(targets.shape[1])]
    return float(np.mean(found)) / len(matrix)


def h_score(features: npt.NDArray[np.floating], labels: Labels) -> float:
    """Return the H-score: how far class means lie apart, in units of the features' covariance, which is shrunk.

    Bao et al., "An Information-Theoretic Approach to Transferability in Task Transfer Learning", ICIP 2019: the trace
    of cov(f)^-1 cov(E[f | y]). With the shrunk covariance of Ibrahim, Ponomareva and Mazumder, "Newer is not always
    better: Rethinking transferability metrics, their peculiarities, stability and performance", arXiv:2110.06893,

        tr( ((1 - a) cov(f) + a mu I)^-1 (1 - a) cov(E[f | y]) ),

    where mu is the mean variance of a feature and a is the shrinkage of Ledoit and Wolf.

    Args:
        features: (N, D).
        labels: (N,), from 0.
    """
    width = features.shape[1]
    matrix = np.asarray(features, dtype=np.float64)
    matrix = rotated(matrix - matrix.mean(0))
    values, vectors = np.linalg.eigh(matrix.T @ matrix / len(matrix))
    mean_variance = float(values.sum()) / width
    if mean_variance <= _RANK * float((np.asarray(features, dtype=np.float64) ** 2).mean()):
        return 0.0  # all images have the same features
    shrinkage = ledoit_wolf_shrinkage(matrix, width)
    shrunk = (1 - shrinkage) * np.maximum(values, 0.0) + shrinkage * mean_variance
    classes = np.unique(labels)
    means = np.stack([math.sqrt(np.mean(labels == k)) * matrix[labels == k].mean(0) for k in classes])
    along = ((means @ vectors) ** 2).sum(0)
    kept = shrunk > _RANK * shrunk.max()
    return float((1 - shrinkage) * (along[kept] / shrunk[kept]).sum())


def ledoit_wolf_shrinkage(centred: Matrix, width: int) -> float:
    """Return the share of the mean variance in the best estimate of a covariance, from 0 to 1.

    Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", Journal of Multivariate
    Analysis 88, 2004, section 3.3.

    Args:
        centred: Rows whose mean is zero, (N, at most D); rotated or not.
        width: D, the number of features before they were rotated.
    """
    num = len(centred)
    covariance = centred.T @ centred / num
    of_covariance = float((covariance**2).sum())
    distance = of_covariance - float(np.trace(covariance)) ** 2 / width
    error = (float(((centred**2).sum(1) ** 2).sum()) / num - of_covariance) / num
    return 1.0 if distance <= 0 else min(max(error / distance, 0.0), 1.0)


def _evidence(values: Matrix, along: Matrix, beyond: float, num: int) -> float:
    """Return the largest log evidence of one class.

    Args:
        values: The eigenvalues of F'F that are not 0.
        along: The squares of the targets' shares in F's directions.
        beyond: The square of what is left of them.
        num: Of images.
    """
    alpha, beta = 1.0, 1.0
    for _ in range(_MOST_STEPS):
        gamma, of_weights, of_errors = _terms(values, along, beyond, alpha, beta)
        before = alpha / beta
        alpha = max(gamma, 1e-12) / max(of_weights, 1e-12)
        beta = max(num - gamma, 1e-12) / max(of_errors, 1e-12 * num)
        if abs(alpha / beta - before) <= _CLOSE * before:
            break
    _, of_weights, of_errors = _terms(values, along, beyond, alpha, beta)
    log_determinant = float(np.log(alpha + beta * values).sum()) - len(values) * math.log(alpha)  # of A / alpha
    return 0.5 * (num * math.log(beta / (2 * math.pi)) - beta * of_errors - alpha * of_weights - log_determinant)


def _terms(values: Matrix, along: Matrix, beyond: float, alpha: float, beta: float) -> tuple[float, float, float]:
    """Return gamma, m'm and |F m - y|^2 at these precisions."""
    mixed = alpha + beta * values
    gamma = float((beta * values / mixed).sum())
    of_weights = float((beta**2 * values * along / mixed**2).sum())
    of_errors = float(((alpha / mixed) ** 2 * along).sum()) + beyond
    return gamma, of_weights, of_errors
