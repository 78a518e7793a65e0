"""The probe: what a linear classifier says of images that it did not train on, its penalty chosen inside each fold."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from regraft.data.split import folds
from regraft.ranking.cost import Cost, affordable
from regraft.ranking.probe import probe
from regraft.ranking.scores import rotated


def planted(apart: float, num: int = 60, width: int = 20, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    labels = np.arange(num) % classes
    return apart * draw.normal(size=(classes, width))[labels] + draw.normal(size=(num, width)), labels


def test_its_predictions_are_those_of_another_solver_at_the_same_penalties() -> None:
    features, labels = planted(0.5)
    fold = folds(labels, 3)
    found = probe(features, labels, fold, 3)
    for number, strength in enumerate(found.strengths):
        train, held = fold != number, fold == number
        scale = (features[train] - features[train].mean(0)).std()
        model = LogisticRegression(C=1 / (strength * train.sum()), tol=1e-8, max_iter=500)
        shares = model.fit(features[train] / scale, labels[train]).predict_proba(features[held] / scale)
        losses = -np.log(shares[np.arange(held.sum()), labels[held]])
        assert found.losses[held] == pytest.approx(losses, abs=1e-2)
        assert found.is_right[held].tolist() == (shares.argmax(1) == labels[held]).tolist()
    assert found.num_images == 60
    assert found.log_loss == pytest.approx(found.losses.mean())


def test_features_that_know_more_are_more_accurate_and_labels_may_be_renamed() -> None:
    accuracies = [probe(*planted(apart), folds(planted(apart)[1], 5), 3).accuracy for apart in (0.0, 2.0)]
    assert accuracies == sorted(accuracies)
    assert accuracies[-1] > 0.95
    features, labels = planted(0.5)
    fold = folds(labels, 5)
    one, other = probe(features, labels, fold, 3), probe(features, (labels + 1) % 3, fold, 3)
    assert one.accuracy == pytest.approx(other.accuracy, abs=0.05)  # the images that choose the penalty are others
    assert one.log_loss == pytest.approx(other.log_loss, abs=0.05)


def test_rotated_features_are_as_good() -> None:
    features, labels = planted(0.8, num=30, width=50)
    fold = folds(labels, 5)
    assert rotated(features).shape == (30, 30)
    one, other = probe(features, labels, fold, 3), probe(rotated(features), labels, fold, 3)
    assert one.accuracy == pytest.approx(other.accuracy, abs=2 / 30)  # the penalties that are tried are others


def test_an_only_image_of_its_class_is_trained_on_and_never_counted() -> None:
    features, labels = planted(1.0)
    labels[0] = 3
    found = probe(features, labels, folds(labels, 5), 4)
    assert found.num_images == 59
    assert np.isnan(found.losses[0])
    spread = found.on(np.arange(60) + 2, 64)
    assert spread.num_images == 59
    assert spread.accuracy == found.accuracy


def test_as_many_images_as_there_is_time_for() -> None:
    one = Cost("a", decoding=0.01, each=0.02, fixed=1.0, width=10, objective=0.0)
    assert affordable([one], 1000, 4.0, fewest=50) == 99 or affordable([one], 1000, 4.0, fewest=50) == 100
    assert affordable([one, one], 1000, 7.0, fewest=50) in (99, 100), "their pixels are decoded once"
    assert affordable([one, one._replace(pixels="b")], 1000, 7.0, fewest=50) < 90
    assert affordable([one], 1000, 100.0, fewest=50) == 1000
    assert affordable([one], 1000, 0.0, fewest=50) == 50
