"""The inverse of the Beta(alpha, alpha) distribution function, so that no library's version changes what is drawn.

Source: NIST's Digital Library of Mathematical Functions, 8.17.8, for the distribution function.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

__all__ = ["beta_from_uniform"]

Values = npt.NDArray[np.float64]

_TINY = 2.0**-54  # a term that no longer counts, of a sum that begins with 1
_MOST_STEPS = 60
_LAST_STEP = 1e-8  # of log x: each step squares the error


def beta_from_uniform(alpha: float, uniform: Values) -> Values:
    """Turn numbers from [0, 1) that are spread evenly into Beta(alpha, alpha) ones, alpha > 0, of the same shape.

    Solves I_x(alpha, alpha) = u by Newton's method on log I against log x, which is nearly a straight line, for x up to
    1/2; above, the distribution is its own mirror image.
    """
    share = np.minimum(uniform, 1 - uniform)
    scale = alpha * math.exp(2 * math.lgamma(alpha) - math.lgamma(2 * alpha))
    x = np.minimum((share * scale) ** (1 / alpha), 0.5)
    solved = x > 0  # else it is less than any number that there is
    x = np.where(solved, x, 0.25)
    moving = solved  # each number ends by itself, whatever stands beside it
    for _ in range(_MOST_STEPS):
        power = x**alpha * (1 - x) ** alpha / scale
        total = power * _series(alpha, x)
        step = np.log(total / np.where(solved, share, total)) * total * (1 - x) / (alpha * power)
        x = np.where(moving, np.minimum(x * np.exp(-step), 0.5), x)
        moving = moving & (np.abs(step) >= _LAST_STEP)
        if not moving.any():
            break
    x = np.where(solved, x, 0.0)
    return np.where(uniform <= 0.5, x, 1 - x)


def _series(alpha: float, x: Values) -> Values:
    """Return F(2 alpha, 1; alpha + 1; x) for 0 < x <= 1/2: no term is negative, and each is less than the one
    before.
    """
    total, term, number = np.ones_like(x), np.ones_like(x), 0
    while term.max(initial=0.0) > _TINY:
        term = term * x * ((2 * alpha + number) / (alpha + 1 + number))
        total += term
        number += 1
    return total
