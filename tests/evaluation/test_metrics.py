"""The measures against scikit-learn's, and what hostile input is told."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from regraft.errors import DataError
from regraft.evaluation.metrics.metrics import classification_metrics, confusion_matrix


def names(count: int) -> list[str]:
    return [f"class {i}" for i in range(count)]


def drawn(num: int, classes: int, seed: int, *, coarse: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Random probabilities and labels; coarse ones have many ties."""
    generator = np.random.default_rng(seed)
    scores = generator.integers(1, 4, (num, classes)) if coarse else generator.exponential(size=(num, classes)) + 1e-3
    return scores / scores.sum(1, keepdims=True), generator.integers(0, classes, num)


@given(st.integers(1, 60), st.integers(2, 12), st.integers(0, 2**31))
@settings(max_examples=60, deadline=None)
def test_measures_equal_scikit_learn(num: int, classes: int, seed: int) -> None:
    probabilities, labels = drawn(num, classes, seed)
    predictions, every = probabilities.argmax(1), list(range(classes))
    result = classification_metrics(probabilities, labels, names(classes))
    assert result["num_images"] == num
    assert result["loss"] == pytest.approx(sk.log_loss(labels, probabilities, labels=every))
    assert result["top1"] == pytest.approx(sk.accuracy_score(labels, predictions))
    recalls = sk.recall_score(labels, predictions, labels=np.unique(labels), average=None, zero_division=0)
    assert result["balanced_accuracy"] == pytest.approx(recalls.mean())
    assert result["confusion"] == sk.confusion_matrix(labels, predictions, labels=every).tolist()
    expected = sk.precision_recall_fscore_support(labels, predictions, labels=every, zero_division=0)
    for key, values in zip(("precision", "recall", "f1", "support"), expected, strict=True):
        assert [row[key] for row in result["per_class"]] == pytest.approx(list(values))
    if classes > 5:
        assert result["top5"] == pytest.approx(sk.top_k_accuracy_score(labels, probabilities, k=5, labels=every))
    else:
        assert result["top5"] is None


@given(st.integers(1, 40), st.integers(6, 9), st.integers(0, 2**31))
@settings(max_examples=30, deadline=None)
def test_ties_go_to_the_class_that_argmax_names(num: int, classes: int, seed: int) -> None:
    probabilities, labels = drawn(num, classes, seed, coarse=True)
    result = classification_metrics(probabilities, labels, names(classes))
    assert result["top1"] == (probabilities.argmax(1) == labels).mean()
    first_five = np.argsort(-probabilities, axis=1, kind="stable")[:, :5]
    assert result["top5"] == (first_five == labels[:, None]).any(1).mean()
    assert np.sum(result["confusion"]) == num


def test_a_class_without_images_does_not_lower_the_balanced_accuracy() -> None:
    result = classification_metrics(np.eye(3)[[0, 1, 0]], np.array([0, 1, 1]), ["a", "b", "never"])
    assert result["balanced_accuracy"] == pytest.approx(0.75)
    assert result["per_class"][2] == {"name": "never", "precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 0}


def test_rows_of_the_confusion_matrix_are_the_truth() -> None:
    assert confusion_matrix(np.array([0, 0, 1]), np.array([1, 1, 1]), 2).tolist() == [[0, 2], [0, 1]]


def test_a_probability_of_zero_keeps_the_loss_finite_and_json_plain() -> None:
    result = classification_metrics(np.array([[1.0, 0.0]], dtype=np.float32), np.array([1]), ["a", "b"])
    assert 80 < result["loss"] < 90
    assert json.loads(json.dumps(result, allow_nan=False)) == result


@pytest.mark.parametrize(
    ("probabilities", "labels", "word"),
    [
        (np.zeros((0, 2)), np.zeros(0, dtype=int), "not one image"),
        (np.full((2, 3), 1 / 3), np.zeros(2, dtype=int), "shape (2, 3)"),
        (np.full((2, 2), 0.5), np.zeros(3, dtype=int), "shape (3,)"),
        (np.full((2, 2), 0.5), np.array([0, 2]), "from 0 to 2"),
        (np.full((2, 2), 0.5), np.array([-1, 0]), "from -1 to 0"),
        (np.array([[0.5, np.nan], [0.5, 0.5]]), np.array([0, 0]), "hold no probabilities: 1"),
    ],
)
def test_what_cannot_be_measured_is_refused(probabilities: np.ndarray, labels: np.ndarray, word: str) -> None:
    with pytest.raises(DataError) as caught:
        classification_metrics(probabilities, labels, ["a", "b"])
    assert word in str(caught.value)
