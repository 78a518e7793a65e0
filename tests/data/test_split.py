"""Seeded, stratified splits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regraft.data.labels import Labels
from regraft.data.split import divide, folds
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
    with pytest.raises(SettingsError, match="split fractions are"):
        divide(np.zeros(4, np.int64), fractions)


@st.composite
def tags(draw: st.DrawFn) -> Labels:
    """Zeros and ones, uint8 (rows, classes), each class with a frequency of its own."""
    num_rows, num_classes = draw(st.integers(1, 60)), draw(st.integers(1, 6))
    shares = [draw(st.sampled_from([0.05, 0.2, 0.5, 0.9])) for _ in range(num_classes)]
    drawn = np.random.default_rng(draw(st.integers(0, 2**32))).random((num_rows, num_classes))
    return (drawn < shares).astype(np.uint8)


@given(tags(), st.integers(0, 2**40))
def test_images_with_several_classes_are_divided_and_every_class_is_trained_on(labels: Labels, seed: int) -> None:
    parts = divide(labels, FRACTIONS, seed=seed)
    assert np.sort(np.concatenate(parts)).tolist() == list(range(len(labels)))
    assert (labels[parts[0]].any(axis=0) == labels.any(axis=0)).all()
    for one, other in zip(parts, divide(labels, FRACTIONS, seed=seed), strict=True):
        np.testing.assert_array_equal(one, other)


def test_shares_of_several_classes_hold_nearly() -> None:
    rng = np.random.default_rng(0)
    labels = (rng.random((2000, 20)) < rng.uniform(0.01, 0.3, 20)).astype(np.uint8)
    counts = labels.sum(axis=0)
    for part, share in zip(divide(labels, FRACTIONS, seed=3), FRACTIONS, strict=True):
        assert abs(len(part) - share * 2000) <= 20
        assert (np.abs(labels[part].sum(axis=0) - share * counts) <= 2).all(), "a random draw misses by ten and more"
    assert len(divide(labels, (0.8, 0.2, 0.0))[2]) == 0


@given(class_sizes, st.integers(2, 9), st.integers(0, 2**40))
def test_folds_hold_every_class_as_evenly_as_its_rows_allow(sizes: list[int], num_folds: int, seed: int) -> None:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    if sum(size for size in sizes if size > 1) < num_folds:
        with pytest.raises(SettingsError, match=f"^{num_folds} folds were asked for"):
            folds(labels, num_folds, seed)
        return
    fold = folds(labels, num_folds, seed)
    np.testing.assert_array_equal(fold, folds(labels, num_folds, seed))
    for label, size in enumerate(sizes):
        counts = np.bincount(fold[labels == label] + 1, minlength=num_folds + 1)
        assert counts[0] == (size == 1), "the only image of a class is always trained on"
        assert counts[1:].max() - counts[1:].min() <= 1
    totals = np.bincount(fold[fold >= 0], minlength=num_folds)
    assert totals.max() - totals.min() <= 1


@given(tags(), st.integers(2, 5), st.integers(0, 2**40))
def test_folds_of_several_classes_cover_every_row_once(labels: Labels, num_folds: int, seed: int) -> None:
    alone = labels[:, labels.sum(axis=0) == 1].any(axis=1)
    if (~alone).sum() < num_folds:
        with pytest.raises(SettingsError, match=f"^{num_folds} folds were asked for"):
            folds(labels, num_folds, seed)
        return
    fold = folds(labels, num_folds, seed)
    np.testing.assert_array_equal(fold == -1, alone)
    assert fold.max() < num_folds


def test_folds_are_even_with_several_classes_too() -> None:
    rng = np.random.default_rng(1)
    labels = (rng.random((1000, 8)) < rng.uniform(0.02, 0.4, 8)).astype(np.uint8)
    fold = folds(labels, 5, seed=2)
    assert np.ptp(np.bincount(fold)) <= 10
    counts = np.stack([labels[fold == k].sum(axis=0) for k in range(5)])
    assert (np.ptp(counts, axis=0) <= 3).all()


def test_other_seeds_give_other_folds() -> None:
    labels = np.repeat([0, 1], 50)
    assert len({tuple(folds(labels, 5, seed).tolist()) for seed in range(10)}) == 10
    np.testing.assert_array_equal(np.bincount(folds(labels, 5, 0)), [20] * 5)


@pytest.mark.parametrize("num_folds", [-1, 0, 1, 5])
def test_impossible_numbers_of_folds_are_refused(num_folds: int) -> None:
    with pytest.raises(SettingsError, match="folds"):
        folds(np.zeros(4, np.int64), num_folds)
