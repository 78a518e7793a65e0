"""Measures of a pass over a split, taken batch by batch; one class for each kind of output."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch.nn.functional as F
from torch import Tensor

__all__ = ["Measure", "measure_for"]


class Measure(Protocol):
    """Takes in batches, gives the measures of all of them."""

    def update(self, logits: Tensor, targets: Tensor) -> None:
        """Take in one batch; logits are fp32."""

    def compute(self) -> dict[str, float]:
        """The measures so far, by name; `loss` is always among them."""


def measure_for(output: str, class_names: Sequence[str]) -> Measure:
    """The measures that an epoch of a network with this kind of output is described by."""
    return _Softmax()


class _Softmax:
    """Mean cross-entropy and share of right answers; counts are whole numbers."""

    def __init__(self) -> None:
        self.loss_sum, self.num_right, self.num_images = 0.0, 0, 0

    def update(self, logits: Tensor, targets: Tensor) -> None:
        self.loss_sum += float(F.cross_entropy(logits, targets, reduction="sum"))
        self.num_right += int((logits.argmax(1) == targets).sum())
        self.num_images += len(targets)

    def compute(self) -> dict[str, float]:
        num = max(self.num_images, 1)
        return {"loss": self.loss_sum / num, "top1": self.num_right / num}
