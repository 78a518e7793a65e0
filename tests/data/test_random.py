"""Counter-based numbers: the same everywhere, whatever is asked and in which order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regraft.data.random import bits, permutation, uniform

MASK = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15
CHAIN = 0xD1342543DE82EF95


def splitmix64(word: int) -> int:
    """One word through SplitMix64's finaliser, in Python integers: the oracle."""
    word = ((word ^ (word >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    word = ((word ^ (word >> 27)) * 0x94D049BB133111EB) & MASK
    return word ^ (word >> 31)


def oracle(seed: int, counters: list[int], num: int) -> list[int]:
    state = splitmix64((seed + GOLDEN) & MASK)
    for counter in counters:
        state = splitmix64((state * CHAIN + splitmix64((counter + GOLDEN) & MASK)) & MASK)
    return [splitmix64((state + step * GOLDEN) & MASK) for step in range(1, num + 1)]


@given(st.integers(-(2**63), 2**64 - 1), st.lists(st.integers(-(2**63), 2**64 - 1), max_size=4), st.integers(1, 5))
def test_bits_equal_whole_number_arithmetic(seed: int, counters: list[int], num: int) -> None:
    assert bits(seed, *counters, num=num)[0].tolist() == oracle(seed & MASK, [c & MASK for c in counters], num)


def test_numbers_of_the_first_release_never_change() -> None:
    # Written down once: a change here breaks every stored run.
    assert bits(0, num=2)[0].tolist() == [12035550249420947055, 12935080325729570654]
    assert permutation(0, 0, 8).tolist() == [5, 7, 2, 3, 4, 6, 1, 0]


@given(st.integers(0, 2**32), st.integers(0, 1000), st.lists(st.integers(0, 10**6), min_size=1, max_size=20))
def test_each_sample_has_its_own_numbers_whoever_asks(seed: int, epoch: int, samples: list[int]) -> None:
    together = uniform(seed, epoch, np.array(samples), num=3)
    alone = np.concatenate([uniform(seed, epoch, sample, num=3) for sample in samples])
    np.testing.assert_array_equal(together, alone)


def test_numbers_fill_the_unit_interval_evenly() -> None:
    numbers = uniform(3, 5, np.arange(50_000), num=2)
    assert numbers.shape == (50_000, 2)
    assert numbers.min() >= 0.0
    assert numbers.max() < 1.0
    counts = np.histogram(numbers, bins=20, range=(0, 1))[0]
    assert np.abs(counts - 5000).max() < 5 * np.sqrt(5000)
    assert abs(np.corrcoef(numbers.T)[0, 1]) < 0.02
    assert abs(np.corrcoef(numbers[:-1, 0], numbers[1:, 0])[0, 1]) < 0.02


@pytest.mark.parametrize(("one", "other"), [((1, 2), (2, 1)), ((0, 0), (0,)), ((0, 1), (1, 0))])
def test_other_counters_give_other_numbers(one: tuple[int, ...], other: tuple[int, ...]) -> None:
    assert uniform(*one, num=1)[0, 0] != uniform(*other, num=1)[0, 0]


@given(st.integers(0, 2**40), st.integers(0, 50), st.integers(0, 300))
def test_permutation_holds_each_number_once_and_repeats(seed: int, epoch: int, n: int) -> None:
    order = permutation(seed, epoch, n)
    assert order.dtype == np.int64
    assert sorted(order.tolist()) == list(range(n))
    np.testing.assert_array_equal(order, permutation(seed, epoch, n))


def test_orders_differ_between_epochs_and_seeds() -> None:
    orders = {tuple(permutation(seed, epoch, 30).tolist()) for seed in range(5) for epoch in range(5)}
    assert len(orders) == 25


def test_every_order_of_three_is_equally_likely() -> None:
    seen = [tuple(permutation(9, epoch, 3).tolist()) for epoch in range(6000)]
    counts = [seen.count(order) for order in sorted(set(seen))]
    assert len(counts) == 6
    assert max(abs(count - 1000) for count in counts) < 150
