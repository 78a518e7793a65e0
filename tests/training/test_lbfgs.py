"""The head solver against scikit-learn's logistic regression, for each output."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from regraft.training.objective.lbfgs import Solution, solve_head
from regraft.training.objective.losses import build_loss

RANDOM = np.random.default_rng(0)
FEATURES = RANDOM.normal(3, 2, (120, 5)).astype(np.float32)
TRUE = FEATURES @ RANDOM.normal(0, 1, (5, 3)) + RANDOM.normal(0, 2, (120, 3))
TRUE = TRUE - TRUE.mean(0)


def solutions(labels: np.ndarray, num_rows: int, output: str, weights: Tensor | None = None) -> list[Solution]:
    loss = build_loss(output, class_weights=weights)
    num_problems = num_rows if output == "multilabel" else 1
    features = torch.from_numpy(FEATURES)
    return list(solve_head(features, torch.from_numpy(labels), num_rows, loss, num_problems=num_problems))


def scaled() -> tuple[np.ndarray, float]:
    """The features as the solver penalises them: one scale for all, so that weights compare."""
    centred = FEATURES.astype(np.float64) - FEATURES.mean(0, dtype=np.float64)
    scale = float(np.sqrt(np.square(centred).mean()))
    return centred / scale, scale


@pytest.mark.parametrize("weights", [None, {0: 0.5, 1: 3.0}])
def test_one_logit_is_logistic_regression(weights: dict[int, float] | None) -> None:
    labels = (TRUE[:, 0] > 0).astype(np.int64)
    given = None if weights is None else torch.tensor(list(weights.values()))
    solution = solutions(labels, 1, "binary", given)[4]
    total = len(labels) if weights is None else sum(weights[label] for label in labels.tolist())
    features, scale = scaled()
    oracle = LogisticRegression(C=1 / (solution.strength * total), class_weight=weights, tol=1e-8, max_iter=1000)
    oracle.fit(features, labels)
    np.testing.assert_allclose(solution.weight.numpy() * scale, oracle.coef_, rtol=1e-3, atol=1e-4)
    logits = FEATURES @ solution.weight.numpy().T + solution.bias.numpy()
    np.testing.assert_allclose(logits[:, 0], oracle.decision_function(features), rtol=1e-3, atol=1e-3)


def test_labels_are_as_many_logistic_regressions() -> None:
    labels = (TRUE - np.array([0, 1, 2]) > 0).astype(np.uint8)
    solution = solutions(labels, 3, "multilabel")[3]
    features, scale = scaled()
    for place in range(3):
        oracle = LogisticRegression(C=1 / (solution.strength * len(labels)), tol=1e-8, max_iter=1000)
        oracle.fit(features, labels[:, place])
        np.testing.assert_allclose(solution.weight.numpy()[place] * scale, oracle.coef_[0], rtol=1e-3, atol=1e-4)


def test_classes_are_weighted() -> None:
    labels, weights = TRUE.argmax(1), {0: 0.2, 1: 1.0, 2: 4.0}
    solution = solutions(labels, 3, "softmax", torch.tensor(list(weights.values())))[5]
    features, scale = scaled()
    total = sum(weights[label] for label in labels.tolist())
    oracle = LogisticRegression(C=1 / (solution.strength * total), class_weight=weights, tol=1e-8, max_iter=1000)
    oracle.fit(features, labels)
    np.testing.assert_allclose(solution.weight.numpy() * scale, oracle.coef_, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("output", "num_rows"), [("softmax", 3), ("binary", 1), ("multilabel", 3)])
def test_a_weaker_penalty_fits_closer(output: str, num_rows: int) -> None:
    labels = {"softmax": TRUE.argmax(1), "binary": (TRUE[:, 0] > 0) * 1, "multilabel": (TRUE > 0).astype(np.uint8)}
    losses = [solution.train_loss for solution in solutions(labels[output], num_rows, output)]
    assert losses == sorted(losses, reverse=True)
