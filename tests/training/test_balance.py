"""Class weights and balanced sampling."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight

from regraft.errors import SettingsError
from regraft.training.objective.balance import class_weights, epoch_order

LABELS = np.array([0] * 17 + [1] * 3 + [2] * 10)
NAMES = ("a", "b", "c")


def test_balanced_weights_equal_scikit_learns() -> None:
    ours = class_weights("balanced", NAMES, LABELS)
    assert ours is not None
    assert ours.numpy() == pytest.approx(compute_class_weight("balanced", classes=np.arange(3), y=LABELS))


def test_balanced_weights_of_labels_make_positives_count_as_much_as_negatives() -> None:
    several = np.array([[1, 1, 0], [1, 0, 0], [1, 0, 1], [1, 0, 0]], dtype=np.uint8)
    counted = class_weights("balanced", ("always", "b", "c"), several)
    assert counted is not None
    assert counted.tolist() == pytest.approx([1, 3, 3])
    assert (several.sum(0) * counted.numpy())[1:] == pytest.approx((1 - several.astype(int)).sum(0)[1:])
    never = class_weights("balanced", ("a", "never"), several[:, [1, 1]] * np.array([1, 0], np.uint8))
    assert never is not None
    assert never.tolist() == [3, 1]


def test_weights_by_order_and_by_name() -> None:
    assert class_weights(None, NAMES, LABELS) is None
    for wanted, expected in (([1, 2, 3.5], [1, 2, 3.5]), ({"c": 4}, [1, 1, 4])):
        found = class_weights(wanted, NAMES, LABELS)  # type: ignore[arg-type]
        assert found is not None
        assert found.tolist() == expected


@settings(max_examples=50, deadline=None)
@given(
    counts=st.lists(st.integers(0, 12), min_size=2, max_size=6).filter(lambda counts: sum(counts) > 0),
    seed=st.integers(0, 2**40),
    epoch=st.integers(0, 10**7),
)
def test_balanced_sampling(counts: list[int], seed: int, epoch: int) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    order = epoch_order("balanced", seed, epoch, labels)
    assert np.array_equal(order, epoch_order("balanced", seed, epoch, labels))
    assert len(order) == len(labels)
    assert len(set(order.tolist())) == len(order), "no view of a row comes twice"
    shown = np.bincount(labels[order % len(labels)], minlength=len(counts))[np.array(counts) > 0]
    assert shown.max() - shown.min() <= 1
    for number, count in enumerate(counts):
        rows = order[labels[order % len(labels)] == number] % len(labels)
        times = np.bincount(rows, minlength=len(labels))[labels == number]
        assert count == 0 or times.max() - times.min() <= 1, "all images of a class come before one comes again"


def test_shuffled_shows_each_image_once_in_another_order_each_epoch() -> None:
    first, second = (epoch_order("shuffled", 1, epoch, LABELS) for epoch in (0, 1))
    assert sorted(first) == sorted(second) == list(range(30))
    assert not np.array_equal(first, second)


def test_balanced_sampling_of_several_labels_is_refused() -> None:
    with pytest.raises(SettingsError, match="class_weights"):
        epoch_order("balanced", 0, 0, np.ones((4, 2), dtype=np.uint8))
