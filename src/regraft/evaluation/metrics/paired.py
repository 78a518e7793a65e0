"""The difference of two shares of right answers on the same images."""

from __future__ import annotations

import math

__all__ = ["Z_90", "Z_95", "difference_interval"]

Z_95, Z_90 = 1.959964, 1.644854  # two-sided


def difference_interval(only_first: int, only_second: int, num: int, z: float = Z_95) -> tuple[float, float]:
    """Return the interval of the difference of two paired shares, second - first.

    Half an image is added to each of the four cells first (Agresti and Min 2005), so that it holds for few images and
    where the networks never differ.

    Args:
        only_first: Images that the first alone gets right.
        only_second: Images that the second alone gets right.
        num: Images in all.
        z: Standard errors to either side.
    """
    total, one, other = num + 2, only_first + 0.5, only_second + 0.5
    centre = (other - one) / total
    half = z * math.sqrt((one + other) - (other - one) ** 2 / total) / total
    return max(-1.0, centre - half), min(1.0, centre + half)
