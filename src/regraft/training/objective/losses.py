"""What training minimises, by the kind of output that the network's head gives."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from regraft.training.objective.pixel_losses import images_counted, pixel_loss

__all__ = ["Loss", "Weigh", "build_loss", "build_weigh"]

Loss = Callable[[Tensor, Tensor], Tensor]
Weigh = Callable[[Tensor], float]


def build_loss(
    output: str,
    *,
    terms: Mapping[str, float] | None = None,
    label_smoothing: float = 0.0,
    class_weights: Tensor | None = None,
    adjustment: Tensor | None = None,
) -> Loss:
    """Turn logits (N, num_logits, ...) and targets into the mean loss of the batch, a scalar.

    Targets are what a data set has, or shares of it (mixup, cutmix): floats (N, C), which for softmax and binary add
    up to 1. With shares of 0 and 1 the loss is that of the labels.

    Args:
        output: `softmax`: logits (N, C), targets int64 (N,); cross-entropy. `binary`: logits (N, 1), targets int64
            (N,) of 0 and 1; the cross-entropy of a sigmoid. `multilabel`: logits (N, C), targets (N, C) of 0 and 1;
            the mean over images and labels of the cross-entropies of C sigmoids. `segmentation`: logits (N, C, H, W),
            targets (N, H, W) with 255 for pixels that count for nothing; see `pixel_loss`.
        terms: Of segmentation: the losses that are added up and their factors; None is the cross-entropy.
        label_smoothing: Share of the target that is spread: over all classes, or over yes and no of each label.
        class_weights: (C,). Softmax, binary, segmentation: the weight of each class, the mean is weighted too (as in
            torch's `CrossEntropyLoss`); the loss of a batch whose classes all have the weight 0 is 0. Multilabel: the
            weight of each label's positives (as `pos_weight` in torch's `BCEWithLogitsLoss`).
        adjustment: (C,). Softmax: what is added to the logits, as `log_shares` gives it.
    """
    if output == "segmentation":
        return _of_pixels(terms or {"cross_entropy": 1.0}, label_smoothing, class_weights)
    kinds = {"softmax": _cross_entropy, "binary": _one_logit, "multilabel": _sigmoids}
    loss = kinds[output]

    def mean_loss(logits: Tensor, targets: Tensor) -> Tensor:
        weights = None if class_weights is None else class_weights.to(logits)
        logits = logits if adjustment is None else logits + adjustment.to(logits)
        return loss(logits, targets, weights, label_smoothing)

    return mean_loss


def build_weigh(output: str, class_weights: Tensor | None, *, num_parts: int) -> Weigh | None:
    """Turn targets of a batch into how much its mean loss counts in a step of several batches.

    None where nothing has to be weighed, or where it is known before the targets are: one label for each image.

    Args:
        output: As for `build_loss`.
        class_weights: As for `build_loss`.
        num_parts: Batches of all processes in a step.
    """
    if output != "segmentation" or num_parts == 1:
        return None

    def weigh(masks: Tensor) -> float:
        return images_counted(masks, None if class_weights is None else class_weights.to(masks.device))

    return weigh


def _of_pixels(terms: Mapping[str, float], smoothing: float, class_weights: Tensor | None) -> Loss:
    def mean_loss(logits: Tensor, masks: Tensor) -> Tensor:
        weights = None if class_weights is None else class_weights.to(logits)
        return pixel_loss(logits, masks, terms, class_weights=weights, label_smoothing=smoothing)

    return mean_loss


def _cross_entropy(logits: Tensor, targets: Tensor, weights: Tensor | None, smoothing: float) -> Tensor:
    if weights is not None and _counts_nothing(targets, weights):
        return logits.sum() * 0  # a mean of nothing would be 0 / 0
    if weights is None or targets.ndim == 1:
        targets = targets if targets.ndim == 1 else targets.to(logits.dtype)
        return F.cross_entropy(logits, targets, weight=weights, label_smoothing=smoothing)
    # torch divides shares by the number of images even when they are weighted; labels by the sum of their weights.
    shares = targets.to(logits.dtype)
    costs = -logits.log_softmax(1) * weights
    smoothed = shares * (1 - smoothing) + smoothing / logits.shape[1]
    return (costs * smoothed).sum() / (shares * weights).sum()


def _counts_nothing(targets: Tensor, weights: Tensor) -> bool:
    """Return whether all images of a batch are of classes whose weight is 0."""
    if bool((weights > 0).all()):
        return False
    own = weights[targets] if targets.ndim == 1 else (targets.to(weights.dtype) * weights).sum(1)
    return not bool((own > 0).any())


def _one_logit(logits: Tensor, targets: Tensor, weights: Tensor | None, smoothing: float) -> Tensor:
    """Return the cross-entropy of single logits: a sigmoid of z is a softmax of (0, z)."""
    return _cross_entropy(torch.cat([torch.zeros_like(logits), logits], dim=1), targets, weights, smoothing)


def _sigmoids(logits: Tensor, targets: Tensor, weights: Tensor | None, smoothing: float) -> Tensor:
    shares = targets.to(logits.dtype) * (1 - smoothing) + smoothing / 2
    return F.binary_cross_entropy_with_logits(logits, shares, pos_weight=weights)
