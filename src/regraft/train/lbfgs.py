"""The head solver: one linear layer on fixed features, by L-BFGS, regularised as the validation images like it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["Solution", "solve_head"]

# Strengths on features scaled to unit variance; each solution starts the next, weaker one.
_STRENGTHS = (1.0, 0.3, 0.1, 0.03, 0.01, 3e-3, 1e-3, 3e-4, 1e-4, 3e-5, 1e-5)
_MAX_BYTES_FP64 = 512 * 2**20


@dataclass(frozen=True)
class Solution:
    """The head at one strength of regularisation.

    Attributes:
        strength: The factor on half the squared norm of the weights, per image, on scaled features.
        weight: (classes, features), for the features as they came.
        bias: (classes,).
        train_loss: Mean cross-entropy on the training images, without the penalty.
    """

    strength: float
    weight: Tensor
    bias: Tensor
    train_loss: float


def solve_head(
    features: Tensor, labels: Tensor, num_classes: int, *, label_smoothing: float = 0.0, max_iterations: int = 100
) -> Iterator[Solution]:
    """Solutions of multinomial logistic regression from strong to weak regularisation.

    Args:
        features: (N, D), any precision.
        labels: (N,) int64.
        num_classes: Rows of the classifier.
        label_smoothing: Share of the target spread over all classes.
        max_iterations: Of L-BFGS, for each strength.
    """
    wide = features.numel() * 8 <= _MAX_BYTES_FP64 and features.device.type == "cpu"
    scaled = features.to(torch.float64 if wide else torch.float32)
    center = scaled.mean(0)
    scaled = scaled - center
    scale = scaled.square().mean().sqrt().clamp(min=1e-12)
    scaled /= scale
    weight = scaled.new_zeros(num_classes, scaled.shape[1])
    bias = scaled.new_zeros(num_classes)
    for strength in _STRENGTHS:
        weight, bias = _minimise(scaled, labels, weight, bias, strength, label_smoothing, max_iterations)
        train_loss = float(F.cross_entropy(F.linear(scaled, weight, bias), labels, label_smoothing=label_smoothing))
        yield Solution(strength, (weight / scale).float(), (bias - weight @ (center / scale)).float(), train_loss)


def _minimise(
    features: Tensor, labels: Tensor, weight: Tensor, bias: Tensor, strength: float, smoothing: float, iterations: int
) -> tuple[Tensor, Tensor]:
    weight = weight.clone().requires_grad_()
    bias = bias.clone().requires_grad_()
    solver = torch.optim.LBFGS(
        [weight, bias], max_iter=iterations, history_size=10, tolerance_grad=1e-6, line_search_fn="strong_wolfe"
    )

    def objective() -> Tensor:
        solver.zero_grad()
        loss = F.cross_entropy(F.linear(features, weight, bias), labels, label_smoothing=smoothing)
        loss = loss + 0.5 * strength * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    solver.step(objective)  # type: ignore[no-untyped-call]
    return weight.detach(), bias.detach()
