"""Seeded, stratified splits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regraft.data.split import divide
from regraft.errors import SettingsError

FRACTIONS = (0.70, 0.15, 0.15)
class_sizes = st.lists(st.integers(1, 60), min_size=1, max_size=6)


@given(class_sizes, st.integers(0, 2**40))
def test_every_row_is_in_exactly_one_part_and_every_class_is_trained_on(sizes: list[int], seed: int) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    parts = divide(labels, FRACTIONS, seed=seed)
    assert np.sort(np.concatenate(parts)).tolist() == list(range(len(labels)))
    assert set(labels[parts[0]]) == set(range(len(sizes)))
    for part, fraction in zip(parts, FRACTIONS, strict=True):
        for label, size in enumerate(sizes):
            share = int((labels[part] == label).sum())
            assert abs(share - fraction * size) <= 1.5


@given(class_sizes, st.integers(0, 2**40))
def test_a_split_is_a_function_of_the_seed(sizes: list[int], seed: int) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    for one, other in zip(divide(labels, FRACTIONS, seed=seed), divide(labels, FRACTIONS, seed=seed), strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_split_of_the_first_release_never_changes() -> None:
    parts = divide(np.repeat([0, 1], [10, 4]), FRACTIONS, seed=1)
    assert [part.tolist() for part in parts] == [[1, 3, 5, 6, 8, 9, 10, 13], [0, 2, 11], [4, 7, 12]]


def test_other_seeds_give_other_splits() -> None:
    labels = np.repeat([0, 1], 50)
    assert len({tuple(divide(labels, FRACTIONS, seed=seed)[1].tolist()) for seed in range(10)}) == 10


@pytest.mark.parametrize(("size", "sizes"), [(1, [1, 0, 0]), (2, [1, 1, 0]), (3, [1, 1, 1]), (100, [70, 15, 15])])
def test_small_classes_go_to_train_first(size: int, sizes: list[int]) -> None:
    assert [len(part) for part in divide(np.zeros(size, np.int64), FRACTIONS)] == sizes


def test_a_share_of_nothing_stays_empty() -> None:
    assert [len(part) for part in divide(np.zeros(10, np.int64), (0.8, 0.2, 0.0))] == [8, 2, 0]


@pytest.mark.parametrize("fractions", [(0.5, 0.6, 0.1), (0.0, 0.5, 0.5), (1.2, -0.2), (), (0.5, 0.4)])
def test_impossible_fractions_are_refused(fractions: tuple[float, ...]) -> None:
    with pytest.raises(SettingsError):
        divide(np.zeros(4, np.int64), fractions)
