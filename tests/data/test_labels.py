"""Labels as arrays: one class for each image, or any number of them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from regraft.data.labels import are_multilabel, class_counts, label_names, labels_from_names, renumbered

NAMES = ("cat", "dog", "fox")
one_each = st.lists(st.sampled_from(NAMES))
any_number = st.lists(st.sets(st.sampled_from(NAMES)).map(sorted))


@given(one_each)
def test_one_class_for_each_image(rows: list[str]) -> None:
    labels = labels_from_names(rows, NAMES, multilabel=False)
    assert (labels.dtype, labels.shape) == (np.int64, (len(rows),))
    assert not are_multilabel(labels)
    assert label_names(labels, NAMES) == rows
    assert class_counts(labels, 3).tolist() == [rows.count(name) for name in NAMES]
    moved = renumbered(labels, np.array([3, 0, 2]), 4)
    assert label_names(moved, ("dog", "-", "fox", "cat")) == rows


@given(any_number)
def test_any_number_of_classes_for_each_image(rows: list[list[str]]) -> None:
    labels = labels_from_names(rows, NAMES, multilabel=True)
    assert (labels.dtype, labels.shape) == (np.uint8, (len(rows), 3))
    assert are_multilabel(labels)
    assert label_names(labels, NAMES) == rows
    assert class_counts(labels, 3).tolist() == [sum(name in row for row in rows) for name in NAMES]
    moved = renumbered(labels, np.array([3, 0, 2]), 4)
    assert [set(names) for names in label_names(moved, ("dog", "-", "fox", "cat"))] == [set(row) for row in rows]


@pytest.mark.parametrize(
    ("rows", "multilabel", "error", "said"),
    [
        (["wolf"], False, KeyError, "wolf"),
        ([["cat"]], False, TypeError, "unhashable"),
        (["cat"], True, TypeError, "'cat' is not a list of class names"),
        ([["w"]], True, KeyError, "w"),
    ],
)
def test_what_is_no_label_is_refused(rows: list[object], multilabel: bool, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        labels_from_names(rows, NAMES, multilabel=multilabel)
