"""What segmentation minimises: cross-entropy, that of hard pixels, Dice, focal, Lovász-Softmax, and sums of them.

Sources: F. Milletari, N. Navab, S. Ahmadi, "V-Net", 2016 (soft Dice; here without squares, and over the classes that
occur in the batch); T. Lin et al., "Focal Loss for Dense Object Detection", 2017 (gamma 2); A. Shrivastava, A. Gupta,
R. Girshick, "Training Region-based Object Detectors with Online Hard Example Mining", 2016, for pixels as in C. Yu et
al., "BiSeNet", 2018; M. Berman, A. Rannen Triki, M. Blaschko, "The Lovász-Softmax loss", 2018 (over the batch, and the
classes that occur in it).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from regraft.data.class_table import IGNORED

__all__ = ["images_counted", "pixel_loss"]

_GAMMA = 2.0
# OHEM: pixels count whose right class has less than this probability, and at least this share of them.
_EASY, _SMALLEST_SHARE = 0.7, 1 / 16


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
        terms: `cross_entropy`, `ohem`, `dice`, `focal`, `lovasz`: their factors.
        class_weights: (C,). Of cross_entropy, ohem and focal: the mean over pixels is weighted, as in torch's
            `CrossEntropyLoss`.
        label_smoothing: Of cross_entropy and ohem.
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
    return _costs(batch).sum() / _at_least_tiny(batch.counted.sum())


def _ohem(batch: _Batch) -> Tensor:
    """Return the mean cross-entropy of the pixels that are not easy yet, or of the hardest sixteenth."""
    log_chances = batch.logits.detach().log_softmax(1)
    hardness = -log_chances.gather(1, batch.targets.clamp(max=log_chances.shape[1] - 1)[:, None])[:, 0]
    hardness = hardness.masked_fill(batch.targets == IGNORED, -1.0)
    num_valid = int((batch.targets != IGNORED).sum())
    smallest = max(1, round(num_valid * _SMALLEST_SHARE))
    bound = hardness.flatten().kthvalue(hardness.numel() - smallest + 1).values
    hard = (hardness >= bound.clamp(max=-math.log(_EASY))) & (batch.targets != IGNORED)
    return (_costs(batch) * hard).sum() / _at_least_tiny((batch.counted * hard).sum())


def _costs(batch: _Batch) -> Tensor:
    """Return the weighted cross-entropy of each pixel, (N, H, W), 0 where it does not count."""
    return F.cross_entropy(
        batch.logits,
        batch.targets,
        weight=batch.class_weights,
        ignore_index=IGNORED,
        label_smoothing=batch.label_smoothing,
        reduction="none",  # the mean of torch has no fixed order on CUDA
    )


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


def _lovasz(batch: _Batch) -> Tensor:
    """Return the mean, over the classes that occur, of the Lovász extension of 1 - IoU at the errors of the pixels."""
    valid = batch.targets != IGNORED
    chances = batch.logits.softmax(1).permute(1, 0, 2, 3)[:, valid]
    targets = batch.targets[valid]
    losses = [
        _lovasz_of_class(chances[number], truth) for number in range(len(chances)) if (truth := targets == number).any()
    ]
    return torch.stack(losses).mean() if losses else batch.logits.sum() * 0.0


def _lovasz_of_class(chances: Tensor, truth: Tensor) -> Tensor:
    """Return the sum of the sorted errors, each times what the loss of IoU grows by when its pixel is wrong as well."""
    errors, order = (truth.to(chances) - chances).abs().sort(descending=True, stable=True)
    sorted_truth = truth[order].to(torch.float64)  # counts above 2^24 are not exact in fp32
    total = sorted_truth.sum()
    overlap = total - sorted_truth.cumsum(0)
    union = total + (1 - sorted_truth).cumsum(0)
    lost = 1 - overlap / union
    return errors @ lost.diff(prepend=lost.new_zeros(1)).to(errors)


def _at_least_tiny(value: Tensor) -> Tensor:
    """Return a divisor: where nothing counts, what it divides is 0."""
    return value.clamp(min=torch.finfo(value.dtype).tiny)


_TERMS: Mapping[str, Callable[[_Batch], Tensor]] = {
    "cross_entropy": _cross_entropy,
    "ohem": _ohem,
    "dice": _dice,
    "focal": _focal,
    "lovasz": _lovasz,
}
