"""What a stage minimises: its loss, the weights of the classes in it, and how batches add up to a step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from regraft.data.cache.cache import PixelCache
from regraft.data.labels import Labels
from regraft.data.masks.pairs import class_pixels
from regraft.plan.imbalance import adjustment_factor
from regraft.plan.losses import loss_terms
from regraft.settings.stage import Stage
from regraft.training.objective.balance import class_weights, log_shares, pixel_weights
from regraft.training.objective.losses import Loss, Weigh, build_loss, build_weigh

__all__ = ["Objective", "build_objective", "logit_adjustment", "loss_weights"]


@dataclass(frozen=True)
class Objective:
    """What a stage minimises.

    Attributes:
        output: What the model's logits mean.
        loss: Logits and targets -> the mean loss of a batch.
        weigh: How much a batch counts in a step, where only its targets say it; else None.
        class_weights: The weight of each class, fp32 (C,), or None.
        adjustment: What the loss adds to the logits, fp32 (C,), or None.
    """

    output: str
    loss: Loss
    weigh: Weigh | None
    class_weights: Tensor | None
    adjustment: Tensor | None = None


def build_objective(
    stage: Stage, output: str, weights: Tensor | None, *, num_processes: int, adjustment: Tensor | None = None
) -> Objective:
    """Return the objective of a stage for a model with this output.

    Args:
        stage: The stage.
        output: What the model's logits mean.
        weights: Of the classes (`loss_weights`).
        num_processes: How many share each batch.
        adjustment: Of the logits (`logit_adjustment`).
    """
    terms, smoothing = loss_terms(stage.loss), stage.label_smoothing
    loss = build_loss(output, terms=terms, label_smoothing=smoothing, class_weights=weights, adjustment=adjustment)
    weigh = build_weigh(output, weights, num_parts=stage.accumulate * num_processes)
    return Objective(output, loss, weigh, weights, adjustment)


def logit_adjustment(stage: Stage, output: str, class_names: Sequence[str], labels: Labels) -> Tensor | None:
    """Return what a stage's loss adds to the logits, fp32 (C,), or None."""
    if output != "softmax":
        return None
    return log_shares(adjustment_factor(stage, output, labels), len(class_names), labels)


def loss_weights(
    stage: Stage, class_names: Sequence[str], labels: Labels, masks: PixelCache | None, *, threads: int = 1
) -> Tensor | None:
    """Return the weight of each class in a stage's loss, fp32 (C,), or None; of masks by their pixels, else by the
    labels.
    """
    if masks is None:
        return class_weights(stage.class_weights, class_names, labels)
    num_classes = len(class_names)
    return pixel_weights(stage.class_weights, class_names, lambda: class_pixels(masks, num_classes, threads))
