"""Splits and folds of whole groups: none is divided, and classes keep their shares as nearly as groups allow."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from regraft.data.labels import Labels
from regraft.data.split import divide, folds
from regraft.errors import SettingsError

FRACTIONS = (0.70, 0.15, 0.15)
Rows = np.ndarray


@st.composite
def grouped(draw: st.DrawFn) -> tuple[Labels, Rows]:
    """Labels of rows, and the group of each: groups of one or of several classes, and of any size."""
    num, num_groups, num_classes = draw(st.integers(2, 60)), draw(st.integers(2, 12)), draw(st.integers(1, 4))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    groups = rng.integers(0, num_groups, num)
    groups[:2] = (0, 1)
    if draw(st.booleans()):
        return rng.integers(0, 2, (num, num_classes)).astype(np.uint8), groups
    own = rng.integers(0, num_classes, num_groups)
    return (own[groups] if draw(st.booleans()) else rng.integers(0, num_classes, num)).astype(np.int64), groups


def held(labels: Labels, rows: Rows) -> set[int]:
    return set(np.flatnonzero(labels[rows].any(0))) if labels.ndim == 2 else set(labels[rows].tolist())


@settings(max_examples=25, deadline=None)
@given(grouped(), st.integers(0, 2**40))
def test_no_group_is_in_two_splits_and_every_class_is_trained_on(data: tuple[Labels, Rows], seed: int) -> None:
    labels, groups = data
    parts = divide(labels, FRACTIONS, seed=seed, groups=groups)
    assert np.sort(np.concatenate(parts)).tolist() == list(range(len(labels)))
    sets = [set(groups[part].tolist()) for part in parts]
    assert not sets[0] & sets[1]
    assert not sets[0] & sets[2]
    assert not sets[1] & sets[2]
    assert held(labels, parts[0]) == held(labels, np.arange(len(labels)))
    for one, two in zip(parts, divide(labels, FRACTIONS, seed=seed, groups=groups), strict=True):
        np.testing.assert_array_equal(one, two)


@settings(max_examples=25, deadline=None)
@given(grouped(), st.integers(2, 5), st.integers(0, 2**40))
def test_no_group_is_in_two_folds_and_every_fold_trains_on_every_class(
    data: tuple[Labels, Rows], num_folds: int, seed: int
) -> None:
    labels, groups = data
    try:
        fold = folds(labels, num_folds, seed, groups=groups)
    except SettingsError:  # too few groups
        return
    np.testing.assert_array_equal(fold, folds(labels, num_folds, seed, groups=groups))
    for group in np.unique(groups):
        assert len(set(fold[groups == group].tolist())) == 1
    whole = held(labels, np.arange(len(labels)))
    for number in range(num_folds):
        assert (fold == number).any()
        assert held(labels, fold != number) == whole


def test_shares_stay_near_for_groups_of_all_sizes() -> None:
    rng = np.random.default_rng(1)
    groups = np.repeat(np.arange(300), rng.integers(1, 12, 300))
    labels = rng.integers(0, 5, 300)[groups].astype(np.int64)
    parts = divide(labels, FRACTIONS, seed=3, groups=groups)
    for label in range(5):
        for part, share in zip(parts, FRACTIONS, strict=True):
            assert abs((labels[part] == label).sum() / (labels == label).sum() - share) < 0.02
    fold = folds(labels, 5, 3, groups=groups)
    for label in range(5):
        np.testing.assert_allclose(np.bincount(fold[labels == label]) / (labels == label).sum(), 0.2, atol=0.02)


def test_few_groups_go_to_train_first_and_then_to_each_split() -> None:
    labels = np.zeros(12, np.int64)
    for num, sizes in ((2, [6, 6, 0]), (3, [4, 4, 4]), (4, [6, 3, 3])):
        groups = np.repeat(np.arange(num), 12 // num)
        assert [len(part) for part in divide(labels, FRACTIONS, groups=groups)] == sizes


def test_another_seed_gives_another_split_of_groups() -> None:
    labels, groups = np.repeat([0, 1], 50), np.arange(100) // 5
    assert len({tuple(divide(labels, FRACTIONS, seed=seed, groups=groups)[1]) for seed in range(10)}) > 5


def test_the_only_group_of_a_class_is_trained_on_in_every_fold() -> None:
    labels = np.array([0, 0, 1, 1, 0, 0, 2, 2])
    groups = np.array([0, 0, 0, 1, 1, 2, 3, 3])
    fold = folds(labels, 2, groups=groups)
    assert fold[6:].tolist() == [-1, -1]
    with pytest.raises(SettingsError, match="and the 4 groups of the images can be spread over 3"):
        folds(labels, 5, groups=groups)
    with pytest.raises(SettingsError, match="belong to one group"):
        divide(labels, FRACTIONS, groups=np.zeros(8, np.int64))
