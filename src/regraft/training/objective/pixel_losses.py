"""What segmentation minimises: cross-entropy, Dice and focal loss over the pixels that count, and sums of them.

Sources: F. Milletari, N. Navab, S. Ahmadi, "V-Net", 2016 (soft Dice; here without squares, and over the classes that
occur in the batch); T. Lin et al., "Focal Loss for Dense Object Detection", 2017 (gamma 2).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from regraft.data.class_table import IGNORED

__all__ = ["images_counted", "pixel_loss"]

_GAMMA = 2.0


def pixel_loss(
    logits: Tensor,
    masks: Tensor,
    terms: Mapping[str, float],
    *,
    class_weights: Tensor | None = None,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Return the sum of some losses, each times its factor; 0 where no pixel of the batch counts.

    Args:
        logits: (N, C, H, W), fp32.
        masks: (N, H, W), class numbers; pixels of 255 count for nothing.
        terms: `cross_entropy`, `dice`, `focal`: their factors.
        class_weights: (C,). Of cross_entropy and focal: the mean over pixels is weighted, as in torch's
            `CrossEntropyLoss`.
        label_smoothing: Of cross_entropy.
    """
    logits, targets = logits.contiguous(), masks.long()
    counted = _counted(targets, class_weights)
    batch = _Batch(logits, targets, counted, class_weights, label_smoothing)
    return torch.stack([factor * _TERMS[name](batch) for name, factor in terms.items()]).sum()


def images_counted(masks: Tensor, class_weights: Tensor | None = None) -> float:
    """Return the weight of a batch in a mean over several: 1 for each image whose pixels all have the weight 1.

    Args:
        masks: (N, H, W), class numbers; pixels of 255 count for nothing.
        class_weights: (C,). How much a pixel of each class counts.
    """
    return float(_counted(masks.long(), class_weights).sum()) / (masks.shape[1] * masks.shape[2])


def _counted(targets: Tensor, class_weights: Tensor | None) -> Tensor:
    """Return the weight of each pixel in the mean, (N, H, W), fp32."""
    counted = (targets != IGNORED).float()
    if class_weights is None:
        return counted
    return counted * class_weights[targets.clamp(max=len(class_weights) - 1)]


class _Batch(NamedTuple):
    """Logits (N, C, H, W), targets (N, H, W), and how much each pixel counts in a mean (N, H, W)."""

    logits: Tensor
    targets: Tensor
    counted: Tensor
    class_weights: Tensor | None
    label_smoothing: float


def _cross_entropy(batch: _Batch) -> Tensor:
    costs = F.cross_entropy(
        batch.logits,
        batch.targets,
        weight=batch.class_weights,
        ignore_index=IGNORED,
        label_smoothing=batch.label_smoothing,
        reduction="none",  # the mean of torch has no fixed order on CUDA
    )
    return costs.sum() / _at_least_tiny(batch.counted.sum())


def _focal(batch: _Batch) -> Tensor:
    """Return the mean of (1 - p)^gamma times the cross-entropy, p the probability of the right class."""
    costs = F.cross_entropy(batch.logits, batch.targets, ignore_index=IGNORED, reduction="none")
    focused = (1 - (-costs).exp()).clamp(min=0).pow(_GAMMA) * costs
    return (focused * batch.counted).sum() / _at_least_tiny(batch.counted.sum())


def _dice(batch: _Batch) -> Tensor:
    """Return 1 - the mean, over the classes that occur, of twice the overlap over the sum of both areas."""
    valid = (batch.targets != IGNORED)[:, None]
    shares = batch.logits.softmax(1) * valid
    classes = torch.arange(shares.shape[1], device=shares.device)[:, None, None]
    truth = batch.targets[:, None] == classes
    overlap, areas = (shares * truth).sum((0, 2, 3)), truth.sum((0, 2, 3))
    occurs = (areas > 0).to(shares)
    each = 1 - 2 * overlap / _at_least_tiny(shares.sum((0, 2, 3)) + areas)
    return (each * occurs).sum() / _at_least_tiny(occurs.sum())


def _at_least_tiny(value: Tensor) -> Tensor:
    """Return a divisor: where nothing counts, what it divides is 0."""
    return value.clamp(min=torch.finfo(value.dtype).tiny)


_TERMS: Mapping[str, Callable[[_Batch], Tensor]] = {"cross_entropy": _cross_entropy, "dice": _dice, "focal": _focal}
