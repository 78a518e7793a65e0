"""Seeded, stratified splits: a function of the seed, the class sizes and the fractions, on every platform."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from regraft.data.random import bits, permutation
from regraft.errors import SettingsError

__all__ = ["divide", "require_fractions"]

_SPLIT_STREAM = 0x73706C6974  # keeps splits apart from the order of training with the same seed


def divide(
    labels: npt.NDArray[np.int64], fractions: Iterable[float], *, seed: int = 0
) -> tuple[npt.NDArray[np.int64], ...]:
    """Row numbers for each part, sorted, every class divided by the same fractions.

    Each later part gets its rounded share of a class and at least one row while rows last; the first part (train)
    gets the rest and never less than one. So a class with one row is in the first part alone, and one with two
    rows is in the first two.

    Args:
        labels: Class numbers, int64 of shape (rows,).
        fractions: The share of each part; they add up to 1. A part with the share 0 stays empty.
        seed: Which of the possible splits.

    Raises:
        SettingsError: If the fractions are negative, do not add up to 1, or leave nothing to train on.
    """
    shares = require_fractions(fractions)
    stream = int(bits(seed, _SPLIT_STREAM, num=1)[0, 0])
    parts: list[list[npt.NDArray[np.int64]]] = [[] for _ in shares]
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        rows = rows[permutation(stream, int(label), len(rows))]
        start = 0
        for part, size in zip(parts, _sizes(len(rows), shares), strict=True):
            part.append(rows[start : start + size])
            start += size
    return tuple(np.sort(np.concatenate([*part, np.empty(0, np.int64)])) for part in parts)


def require_fractions(fractions: Iterable[float]) -> tuple[float, ...]:
    """The fractions as a tuple.

    Raises:
        SettingsError: If they are negative, do not add up to 1, or leave nothing to train on.
    """
    shares = tuple(float(share) for share in fractions)
    if shares and min(shares) >= 0 and shares[0] > 0 and abs(sum(shares) - 1) <= 1e-6:
        return shares
    raise SettingsError(
        f"The split fractions are {shares}.",
        "They are shares from 0 to 1 that add up to 1, and the first, for training, is above 0.",
        "Give, for example, (0.70, 0.15, 0.15).",
    )


def _sizes(num_rows: int, shares: tuple[float, ...]) -> list[int]:
    sizes, left = [], num_rows - 1
    for share in shares[1:]:
        size = min(left, max(1, int(num_rows * share + 0.5))) if share else 0
        sizes.append(size)
        left -= size
    return [num_rows - sum(sizes), *sizes]
