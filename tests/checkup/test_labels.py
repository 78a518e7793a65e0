"""Wrong labels are named with the class that fits, by a judge that has not seen the image."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from tests.conftest import photo, photos

import regraft as rg
from regraft.checkup.mislabelled import judge


@pytest.fixture(scope="module")
def blobs() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(3), 60)
    return rng.normal(0, 1, (180, 40)) + 2.5 * np.eye(3, 40)[labels], labels


@pytest.mark.parametrize("share", [0.05, 0.3])
def test_planted_errors_are_the_most_doubtful(blobs: tuple[np.ndarray, np.ndarray], share: float) -> None:
    features, truth = blobs
    rng = np.random.default_rng(1)
    wrong = rng.choice(len(truth), int(share * len(truth)), replace=False)
    labels = truth.copy()
    labels[wrong] = (truth[wrong] + rng.integers(1, 3, len(wrong))) % 3
    judged = judge(features, labels)
    is_wrong = np.isin(np.arange(len(labels)), wrong)
    above = (judged.doubts[is_wrong][:, None] > judged.doubts[~is_wrong]).mean()
    assert above > 0.97
    assert (judged.suggested[judged.suspects] == truth[judged.suspects]).mean() > 0.9


def test_scores_are_those_of_a_fit_without_the_image(blobs: tuple[np.ndarray, np.ndarray]) -> None:
    """The closed form against fitting again for each image."""
    from regraft.checkup import mislabelled

    features, labels = blobs
    matrix = mislabelled._scaled(features[::6])
    given = np.eye(3)[labels[::6]]
    weights = np.ones(len(matrix))
    weights[[2, 9]] = 0
    found = mislabelled._left_out(matrix, given, weights, 0.03)
    strength = 0.03 * weights.sum()
    for row in (0, 2, 17):
        others = weights.copy()
        others[row] = 0
        centre, mean = others @ matrix / others.sum(), others @ given / others.sum()
        inner = (matrix - centre).T @ (others[:, None] * (matrix - centre)) + strength * np.eye(matrix.shape[1])
        slope = np.linalg.solve(inner, (matrix - centre).T @ (others[:, None] * (given - mean)))
        np.testing.assert_allclose(found[row], (matrix[row] - centre) @ slope + mean, atol=1e-8)


def test_an_image_far_from_every_class_is_an_outlier(blobs: tuple[np.ndarray, np.ndarray]) -> None:
    features, labels = blobs
    strange = np.concatenate([features, 9 * np.ones((1, 40))])
    assert 180 in judge(strange, np.append(labels, 0)).outliers


def test_outliers_are_found_beside_a_class_that_all_others_contradict(blobs: tuple[np.ndarray, np.ndarray]) -> None:
    """Three images of a class that lie among another one: a round without them would leave the class with none."""
    features, labels = blobs
    strange = np.concatenate([features, features[:3] + 0.01, 9 * np.ones((1, 40))])
    judged = judge(strange, np.append(labels, [3, 3, 3, 0]))
    assert np.isfinite(judged.distances).all()
    assert 183 in judged.outliers


def test_a_photo_in_the_wrong_folder_is_named_with_its_class(tmp_path: Path) -> None:
    root = photos(tmp_path / "photos", {"blue": 20, "green": 20, "red": 20})
    photo(root / "red" / "lost.png", (40, 60, 200), 999)
    found = rg.check(root, model="tf_efficientnet_lite0").of("label-error")
    assert found is not None
    assert [(Path(item.path).name, item.suggestion) for item in found.items] == [("lost.png", "blue")]
    assert found.items[0].score is not None
    assert found.items[0].score > 0.35
