"""Settings of a stage that nothing reads: each is worth a sentence, none is worth an error."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from regraft.plan.losses import loss_terms
from regraft.plan.optimizers import has_momentum
from regraft.plan.stages import Stage

__all__ = ["without_effect"]

_READ_BY_LBFGS = {
    *("name", "train", "bn", "start", "optimizer", "image_size", "precision", "augment"),
    *("label_smoothing", "class_weights"),
}


def without_effect(stage: Stage, asked: str) -> Iterator[str]:
    """One sentence for each setting that was given and does nothing.

    Args:
        stage: A stage whose optimizer is resolved.
        asked: The optimizer as it was asked for: with `auto`, the length is for the case that nothing is solved.
    """
    if stage.optimizer == "lbfgs":
        spared = _READ_BY_LBFGS | ({"epochs"} if asked == "auto" else set())
        for name in _given(stage):
            if name not in spared:
                yield f"{name} has no effect: the stage is solved by lbfgs; set `optimizer: adamw` to descend"
        return
    yield from _of_rates(stage)
    if stage.momentum is not None and not has_momentum(stage.optimizer):
        yield f"momentum has no effect on {stage.optimizer}; its averages are `optimizer_args: {{betas: ...}}`"
    if stage.momentum is not None and stage.rate_schedule.name == "one-cycle" and _cycles(stage):
        yield "momentum has no effect: a one-cycle schedule sets it; `schedule.cycle_momentum: false` leaves it"
    if stage.decay_norm_and_bias and not stage.weight_decay:
        yield "decay_norm_and_bias has no effect without weight_decay"
    if stage.label_smoothing and "cross_entropy" not in loss_terms(stage.loss):
        yield "label_smoothing has no effect without cross_entropy in the loss"
    if stage.class_weights is not None and set(loss_terms(stage.loss)) == {"dice"}:
        yield "class_weights has no effect on dice, in which every class counts the same"
    if stage.augment is not None and stage.augment.is_identity:
        yield "augment has no effect: nothing in it is above zero"
    stopping, length = stage.early_stopping, stage.epochs
    if stopping is None or stopping.restore_best or length is None:
        return
    if stopping.start_from_epoch + stopping.patience >= length:
        yield f"early_stopping has no effect: its patience is not over before epoch {length} ends the stage"


def _of_rates(stage: Stage) -> Iterator[str]:
    if stage.layer_decay == 1:
        yield "layer_decay has no effect: 1 keeps all rates"
    if stage.plateau is not None and stage.plateau.min_lr >= stage.learning_rate:
        yield "plateau has no effect: its min_lr is not below the learning rate"
    schedule = stage.rate_schedule
    if schedule.name == "step" and schedule.gamma == 1:
        yield "schedule.gamma has no effect: 1 keeps the rate"


def _cycles(stage: Stage) -> bool:
    return stage.rate_schedule.cycle_momentum is not False


def _given(stage: Stage) -> list[str]:
    """Names of the settings that are not what a stage has by itself."""
    plain: Any = Stage("plain")
    return [item.name for item in fields(Stage) if getattr(stage, item.name) != getattr(plain, item.name)]
