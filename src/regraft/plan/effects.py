"""Settings of a stage that have no effect: each deserves a warning, none an error."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields
from typing import Any

from regraft.plan.losses import loss_terms
from regraft.plan.optimizers import has_momentum, learning_rate
from regraft.settings.monitor import EarlyStopping, Plateau, mode_of
from regraft.settings.stage import DEFAULT_EPOCHS, Stage

__all__ = ["direction", "too_late", "without_effect"]

_READ_BY_LBFGS = {
    *("name", "train", "bn", "start", "optimizer", "image_size", "train_image_size", "precision", "augment"),
    *("label_smoothing", "class_weights", "logit_adjustment"),
}


def without_effect(stage: Stage, asked: str) -> Iterator[str]:
    """Yield one sentence per setting that was set and has no effect.

    Args:
        stage: A stage whose optimizer is resolved.
        asked: The optimizer as set: with `auto`, the length is for the case of gradient descent.
    """
    if stage.optimizer == "lbfgs":
        spared = _READ_BY_LBFGS | ({"epochs"} if asked == "auto" else set())
        for name in _given(stage):
            if name not in spared:
                yield f"{name} has no effect: the stage is fit with L-BFGS; set `optimizer: adamw` for gradient descent"
        return
    yield from _of_rates(stage)
    if stage.momentum is not None and not has_momentum(stage.optimizer):
        yield f"momentum has no effect on {stage.optimizer}; its betas are `optimizer_args: {{betas: ...}}`"
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
    if stage.class_weights == "balanced" and stage.sampling == "balanced":
        yield (
            "class_weights: balanced and sampling: balanced both correct class imbalance, so that rare classes weigh "
            "more than common ones; leave one of them out"
        )
    if stage.logit_adjustment not in (0, "auto") and "balanced" in (stage.class_weights, stage.sampling):
        yield (
            "logit_adjustment and balanced weights or sampling both correct class imbalance, so that rare classes are "
            "named more often than they are seen; leave one of them out"
        )
    for rule in (stage.early_stopping, stage.plateau):
        yield from _against_direction(rule)
    if stage.steps is None:
        epochs = stage.epochs or DEFAULT_EPOCHS
        yield from too_late(stage, epochs, epochs)


def _against_direction(rule: EarlyStopping | Plateau | None) -> Iterator[str]:
    """Warn of a rule that takes an improvement for a deterioration."""
    if rule is None or rule.mode in (None, mode_of(rule.monitor)):
        return
    name, effect = ("plateau", "lowers the rate") if isinstance(rule, Plateau) else ("early_stopping", "ends the stage")
    yield direction(f"{name}.monitor {rule.monitor}", rule.monitor, rule.mode, f"{name} {effect} as it improves")


def direction(what: str, monitor: str, mode: str | None, effect: str) -> str:
    """Say that a metric is monitored in the wrong direction, and with what effect."""
    better = "smaller" if mode_of(monitor) == "min" else "larger"
    return (
        f"{what} is better when {better}, but its mode is {mode}, so {effect}; leave mode out or set it to "
        f"{mode_of(monitor)}"
    )


def too_late(stage: Stage, epochs: int, units: int) -> Iterator[str]:
    """Warn of rules that would act only after the end of the stage. They decide at the end of an epoch.

    Args:
        stage: The stage.
        epochs: Its length in epochs.
        units: The same as its schedule counts, in epochs or steps.
    """
    stopping, plateau, schedule = stage.early_stopping, stage.plateau, stage.rate_schedule
    end = f"epoch {epochs} ends the stage"
    if stopping is not None and not stopping.restore_best:
        # The first epoch is always an improvement; without a baseline it also resets the patience.
        waited = stopping.patience + (stopping.baseline is None)
        if stopping.start_from_epoch + max(waited, 2) >= epochs:
            yield f"early_stopping has no effect: its patience is not over before {end}"
    if plateau is not None and 1 + max(plateau.patience, 1) >= epochs:
        yield f"plateau has no effect: its patience is not over before {end}"
    if schedule.name == "step" and (schedule.every or min(schedule.milestones or (1,))) >= units:
        yield f"schedule step has no effect: its first milestone does not come before {end}"


def _of_rates(stage: Stage) -> Iterator[str]:
    if stage.layer_decay == 1:
        yield "layer_decay has no effect: 1 keeps all rates"
    if stage.plateau is not None and stage.plateau.min_lr >= learning_rate(stage):
        yield "plateau has no effect: its min_lr is not below the learning rate"
    schedule = stage.rate_schedule
    if schedule.name == "step" and schedule.gamma == 1:
        yield "schedule.gamma has no effect: 1 keeps the rate"


def _cycles(stage: Stage) -> bool:
    return stage.rate_schedule.cycle_momentum is not False


def _given(stage: Stage) -> list[str]:
    """Return the names of settings that differ from their defaults."""
    plain: Any = Stage("plain")
    return [item.name for item in fields(Stage) if getattr(stage, item.name) != getattr(plain, item.name)]
