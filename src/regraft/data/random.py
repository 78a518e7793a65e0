"""Randomness as a function: numbers that depend on a seed and on counters alone, never on a state.

`uniform(seed, epoch, sample, num=4)` gives the same four numbers on every platform, in every process and in every
order of asking; that is why nothing about workers has to be saved for an exact resume. The counters are hashed with
the finaliser of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

__all__ = ["bits", "permutation", "uniform"]

_GOLDEN = 0x9E3779B97F4A7C15
_CHAIN = 0xD1342543DE82EF95  # Steele and Vigna, "Computationally easy, spectrally good multipliers", 2021
_MASK = 0xFFFFFFFFFFFFFFFF
_ORDER_STREAM = 0x6F72646572  # keeps orders apart from numbers drawn with the same seed and epoch

Counter = int | np.integer | npt.NDArray[np.integer]


def bits(seed: int, *counters: Counter, num: int) -> npt.NDArray[np.uint64]:
    """Return `num` 64-bit words for each row of counters, as uint64 of shape (rows, num).

    Counters are whole numbers or 1-D integer arrays, which broadcast against each other; whole numbers alone
    give one row. Negative numbers count modulo 2**64.
    """
    rows = _mix(_words(seed) + np.uint64(_GOLDEN))
    for counter in counters:
        # The multiplication makes the order of the counters count: a sum alone would not.
        rows = _mix(rows * np.uint64(_CHAIN) + _mix(_words(counter) + np.uint64(_GOLDEN)))
    steps = np.arange(1, num + 1, dtype=np.uint64) * np.uint64(_GOLDEN)
    return _mix(rows[:, None] + steps)


def uniform(seed: int, *counters: Counter, num: int) -> npt.NDArray[np.float64]:
    """Return `num` uniform numbers in [0, 1) for each row of counters, as float64 of shape (rows, num).

    The counters are, for example, an epoch and an array of sample numbers: `uniform(seed, epoch, samples, num=7)`.
    The top 53 bits of each word become the number, so that it is exact in float64.
    """
    return (bits(seed, *counters, num=num) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def permutation(seed: int, epoch: int, n: int) -> npt.NDArray[np.int64]:
    """Return the numbers 0 to n-1 in an order that is a function of seed and epoch, as int64 of shape (n,)."""
    keys = bits(seed, _ORDER_STREAM, epoch, num=n)[0]
    return np.argsort(keys, kind="stable").astype(np.int64)


def _words(counter: Counter) -> npt.NDArray[np.uint64]:
    # Always 1-D: numpy warns about wrapped scalars, and wraps arrays in silence.
    if isinstance(counter, np.ndarray):
        return np.atleast_1d(counter).astype(np.uint64)
    return np.array([int(counter) & _MASK], dtype=np.uint64)


def _mix(words: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))
