"""The head solver: one linear layer on fixed features, by L-BFGS, regularised as the validation images like it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from regraft.compute.eager_optimizers import eager
from regraft.training.objective.losses import Loss

__all__ = ["STRENGTHS", "Solution", "solve_head"]

# Strengths on features scaled to unit variance; each solution starts the next, weaker one.
STRENGTHS = (1.0, 0.3, 0.1, 0.03, 0.01, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5)
_MAX_BYTES_FP64 = 512 * 2**20


@dataclass(frozen=True)
class Solution:
    """The head at one strength of regularisation.

    Attributes:
        strength: The factor on half the squared norm of the weights, per image, on scaled features.
        weight: (rows, features), for the features as they came.
        bias: (rows,).
        train_loss: Mean loss on the training images, without the penalty.
    """

    strength: float
    weight: Tensor
    bias: Tensor
    train_loss: float


def solve_head(
    features: Tensor,
    labels: Tensor,
    num_rows: int,
    loss: Loss,
    *,
    num_problems: int = 1,
    max_iterations: int = 100,
    strengths: Sequence[float] = STRENGTHS,
) -> Iterator[Solution]:
    """Return solutions of logistic regression (multinomial, of two classes, or of each label) from strong to weak
    penalties.

    Args:
        features: (N, D), any precision.
        labels: (N,) int64, or (N, C) of 0 and 1.
        num_rows: Rows of the classifier.
        loss: Logits (N, num_rows) and labels -> the mean loss; convex in the logits.
        num_problems: Labels that the loss is a mean over, each a regression of its own; a strength is that of each.
        max_iterations: Of L-BFGS, for each strength.
        strengths: From strong to weak.
    """
    wide = features.numel() * 8 <= _MAX_BYTES_FP64 and features.device.type == "cpu"
    scaled = features.to(torch.float64 if wide else torch.float32)
    center = scaled.mean(0)
    scaled = scaled - center
    scale = scaled.square().mean().sqrt().clamp(min=1e-12)
    scaled /= scale
    weight = scaled.new_zeros(num_rows, scaled.shape[1])
    bias = scaled.new_zeros(num_rows)
    for strength in strengths:
        weight, bias = _minimise(scaled, labels, weight, bias, strength / num_problems, loss, max_iterations)
        train_loss = float(loss(F.linear(scaled, weight, bias), labels))
        yield Solution(strength, (weight / scale).float(), (bias - weight @ (center / scale)).float(), train_loss)


def _minimise(
    features: Tensor, labels: Tensor, weight: Tensor, bias: Tensor, strength: float, loss: Loss, iterations: int
) -> tuple[Tensor, Tensor]:
    weight = weight.clone().requires_grad_()
    bias = bias.clone().requires_grad_()
    how: dict[str, Any] = {"history_size": 10, "tolerance_grad": 1e-6, "line_search_fn": "strong_wolfe"}
    solver = eager(torch.optim.LBFGS)([weight, bias], max_iter=iterations, **how)

    def objective() -> Tensor:
        solver.zero_grad()
        value = loss(F.linear(features, weight, bias), labels) + 0.5 * strength * weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    solver.step(objective)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()
