"""LogME and the H-score: against closed forms that are computed otherwise, and what must not change them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.stats import multivariate_normal
from sklearn.covariance import LedoitWolf

from regraft.ranking.scores import h_score, ledoit_wolf_shrinkage, log_me, rotated


def planted(
    num: int = 90, width: int = 12, classes: int = 3, apart: float = 1.5, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Features whose classes lie apart, and their labels."""
    draw = np.random.default_rng(seed)
    labels = np.arange(num) % classes
    means = apart * draw.normal(size=(classes, width))
    return means[labels] + draw.normal(size=(num, width)) * draw.uniform(0.5, 2, width) + 0.3, labels


SHAPES = [(45, 6, 3), (24, 40, 2), (60, 4, 5)]


@pytest.mark.parametrize(("num", "width", "classes"), SHAPES)
def test_log_me_is_the_maximum_of_the_density_of_the_targets(num: int, width: int, classes: int) -> None:
    """The evidence is the density of y in a normal distribution with the covariance I / beta + FF' / alpha."""
    features, labels = planted(num, width, classes)
    found = []
    for label in range(classes):
        y = (labels == label).astype(float)

        def surprise(logs: np.ndarray, y: np.ndarray = y) -> float:
            alpha, beta = np.exp(logs)
            covariance = np.eye(num) / beta + features @ features.T / alpha
            return -float(multivariate_normal(np.zeros(num), covariance).logpdf(y))

        options = {"xatol": 1e-5, "fatol": 1e-8}
        best = minimize(surprise, [3.0, 2.0], method="Nelder-Mead", options=options)
        found.append(-best.fun / num)
    assert log_me(features, labels) == pytest.approx(np.mean(found), abs=1e-5)


@pytest.mark.parametrize(("num", "width", "classes"), SHAPES)
def test_the_h_score_is_the_trace_that_the_paper_writes(num: int, width: int, classes: int) -> None:
    features, labels = planted(num, width, classes)
    fitted = LedoitWolf().fit(features)
    centred = features - features.mean(0)
    means = np.stack([centred[labels == label].mean(0) for label in labels])  # E[f | y] of each image
    expected = np.trace(np.linalg.inv(fitted.covariance_) @ ((1 - fitted.shrinkage_) * means.T @ means / num))
    assert h_score(features, labels) == pytest.approx(expected, rel=1e-8)
    assert ledoit_wolf_shrinkage(centred, width) == pytest.approx(fitted.shrinkage_, rel=1e-8)
    assert ledoit_wolf_shrinkage(rotated(centred), width) == pytest.approx(fitted.shrinkage_, rel=1e-8)


@pytest.mark.parametrize("score", [log_me, h_score])
@pytest.mark.parametrize(("num", "width", "classes"), SHAPES)
def test_what_changes_nothing(score: object, num: int, width: int, classes: int) -> None:
    assert callable(score)
    features, labels = planted(num, width, classes)
    value = score(features, labels)
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(width, width)))[0]
    assert score(features @ turn, labels) == pytest.approx(value, rel=1e-6)
    order = np.random.default_rng(2).permutation(num)
    assert score(features[order], labels[order]) == pytest.approx(value, rel=1e-6)
    assert score(features, (labels + 1) % classes) == pytest.approx(value, rel=1e-6)
    assert score(rotated(features), labels) == pytest.approx(value, rel=1e-6) or score is h_score
    padded = np.hstack([features, np.zeros((num, 5))])
    assert score is h_score or score(padded, labels) == pytest.approx(value, rel=1e-6)


@pytest.mark.parametrize("score", [log_me, h_score])
def test_the_h_score_grows_with_the_classes_distance_and_random_features_come_last(score: object) -> None:
    assert callable(score)
    scores = [score(*planted(apart=apart)) for apart in (0.0, 0.3, 1.0, 3.0)]
    assert scores == sorted(scores)


def test_the_scale_of_features_does_not_move_the_h_score() -> None:
    features, labels = planted()
    assert h_score(1000 * features, labels) == pytest.approx(h_score(features, labels), rel=1e-8)


def test_features_without_any_content() -> None:
    labels = np.arange(20) % 2
    assert h_score(np.ones((20, 4)), labels) == 0.0
    assert np.isfinite(log_me(np.zeros((20, 4)), labels))
    assert np.isfinite(log_me(np.ones((20, 4)), labels))
    perfect = np.eye(2)[labels]
    assert np.isfinite(log_me(perfect, labels))
    assert log_me(perfect, labels) > log_me(np.ones((20, 4)), labels)
