"""What training minimises, by the kind of output that the network's head gives."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

__all__ = ["Loss", "build_loss"]

Loss = Callable[[Tensor, Tensor], Tensor]


def build_loss(output: str, *, label_smoothing: float = 0.0, class_weights: Tensor | None = None) -> Loss:
    """Logits (N, ...) in fp32 and targets -> the mean loss of the batch, a scalar.

    Args:
        output: `softmax`: logits (N, C), targets int64 (N,) or shares (N, C).
        label_smoothing: Share of the target spread over all classes.
        class_weights: (C,), the weight of each class.
    """

    def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
        return F.cross_entropy(logits, targets, weight=class_weights, label_smoothing=label_smoothing)

    return cross_entropy
