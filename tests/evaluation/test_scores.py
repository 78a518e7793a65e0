"""Areas and thresholds: scikit-learn's figures, ties included, and no figure where none is defined."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from sklearn import metrics

from regraft.evaluation.metrics.scores import average_precision, roc_auc
from regraft.evaluation.metrics.thresholds import CRITERIA, FEWEST, best_threshold, choose_thresholds

Bools = npt.NDArray[np.bool_]
PAIRS = st.lists(st.tuples(st.integers(0, 12), st.booleans()), min_size=2, max_size=40)


@given(PAIRS)
@settings(max_examples=200, deadline=None)
def test_areas_are_scikit_learns(pairs: list[tuple[int, bool]]) -> None:
    scores, positive = np.array([score / 8 for score, _ in pairs]), np.array([kind for _, kind in pairs])
    assume(0 < positive.sum() < len(positive))
    assert roc_auc(scores, positive) == pytest.approx(metrics.roc_auc_score(positive, scores), abs=1e-12)
    expected = metrics.average_precision_score(positive, scores)
    assert average_precision(scores, positive) == pytest.approx(expected, abs=1e-12)


def test_what_is_not_defined_is_no_number() -> None:
    scores = np.array([0.1, 0.9])
    assert math.isnan(roc_auc(scores, np.array([True, True])))
    assert math.isnan(roc_auc(scores, np.array([False, False])))
    assert math.isnan(average_precision(scores, np.array([False, False])))
    assert average_precision(scores, np.array([True, True])) == 1.0
    assert math.isnan(roc_auc(np.array([0.1, np.nan]), np.array([True, False])))
    assert math.isnan(average_precision(np.array([0.1, np.inf]), np.array([True, False])))


PROBABILITIES = st.lists(st.tuples(st.floats(0, 1, width=32), st.booleans()), min_size=10, max_size=40)


def balanced_accuracy(positive: Bools, called: Bools) -> float:
    return float((called[positive].mean() + (~called[~positive]).mean()) / 2)


def f1(positive: Bools, called: Bools) -> float:
    return float(2 * (positive & called).sum() / (positive.sum() + called.sum()))


@given(PROBABILITIES)
@example([(0.0, number < FEWEST) for number in range(2 * FEWEST)])
@settings(max_examples=100, deadline=None)
@pytest.mark.parametrize("output", ["binary", "multilabel"])
def test_no_threshold_is_better_than_the_chosen_one(output: str, pairs: list[tuple[float, bool]]) -> None:
    values, positive = np.array([value for value, _ in pairs]), np.array([kind for _, kind in pairs])
    assume(min(positive.sum(), (~positive).sum()) >= FEWEST)
    score = balanced_accuracy if output == "binary" else f1
    chosen = best_threshold(values, positive, CRITERIA[output][1])
    reached = score(positive, values >= chosen)
    tried = [score(positive, values >= threshold) for threshold in (*values, 0.5, 0.0)]
    assert reached == pytest.approx(max(tried), abs=1e-12)
    if score(positive, values >= 0.5) == pytest.approx(max(tried), abs=1e-12):
        assert chosen == 0.5, "where 0.5 is as good, it stays"


def test_few_images_decide_nothing() -> None:
    values, labels = np.linspace(0.6, 0.9, 12), np.arange(12) >= 12 - FEWEST + 1
    pair = np.stack([1 - values, values], 1)
    assert choose_thresholds("binary", pair, labels.astype(np.int64), ["a", "b"]) == {"b": 0.5}
    enough = np.arange(12) >= 12 - FEWEST
    assert choose_thresholds("binary", pair, enough.astype(np.int64), ["a", "b"])["b"] > 0.6


def test_labels_have_thresholds_of_their_own() -> None:
    low, high = np.linspace(0.0, 0.2, 20), np.linspace(0.8, 1.0, 20)
    labels = np.stack([low > 0.1, high > 0.9, np.zeros(20, bool)], 1).astype(np.uint8)
    chosen = choose_thresholds("multilabel", np.stack([low, high, low], 1), labels, ["low", "high", "never"])
    assert chosen["low"] == pytest.approx(0.1, abs=0.01)
    assert chosen["high"] == pytest.approx(0.9, abs=0.01)
    assert chosen["never"] == 0.5
    assert choose_thresholds("softmax", labels, labels[:, 0], ["a", "b", "c"]) == {}


def drawn(num: int, seed: int) -> tuple[np.ndarray, Bools]:
    """Calibrated probabilities of a label that a fifth of the images have: the best threshold lies below 0.5."""
    rng = np.random.default_rng(seed)
    positive = rng.random(num) < 0.2
    logits = 2 * rng.normal(2 * positive, 1) - 2 + np.log(0.2 / 0.8)
    return 1 / (1 + np.exp(-logits)), positive


@pytest.mark.parametrize(("num", "least"), [(12, -1e-9), (25, -0.01), (60, -0.005), (300, 0.001)])
def test_thresholds_of_labels_do_not_follow_single_images(num: int, least: float) -> None:
    """On images that they were not chosen on, they are in the mean no worse than 0.5; of many images better."""
    others, truth = drawn(4000, seed=99)
    gains, tuned = [], 0
    for seed in range(30):
        values, positive = drawn(num, seed)
        labels = positive[:, None].astype(np.uint8)
        chosen = choose_thresholds("multilabel", values[:, None], labels, ["a"])["a"]
        gains.append(f1(truth, others >= chosen) - f1(truth, others >= 0.5))
        tuned += chosen != 0.5
    assert np.mean(gains) >= least
    assert tuned < 30 if num < 100 else tuned > 0
