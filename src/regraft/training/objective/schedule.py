"""Learning rates over a stage, and the decisions that follow a watched measure: all functions of what is stored."""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass

from regraft.plan.length import Length
from regraft.settings.monitor import EarlyStopping, Plateau, mode_of
from regraft.settings.schedule import Schedule
from regraft.settings.stage import Stage

__all__ = [
    "EarlyStoppingState",
    "PlateauState",
    "is_better",
    "momentum_at",
    "rate_at",
]

_MOMENTUM = (0.85, 0.95)  # at the peak of one cycle, and at its ends, as in torch's OneCycleLR


def rate_at(stage: Stage, base: float, step: int, length: Length, *, scale: float = 1.0) -> float:
    """Return the learning rate of a step of a stage.

    Args:
        stage: Whose warm-up, schedule and plateau rule count.
        base: The rate of a full step.
        step: The step of the stage, from 0.
        length: How long the stage is.
        scale: What the plateau rule has multiplied the rates by so far; it lowers no rate below its `min_lr`.
    """
    if stage.plateau is not None:
        base = max(base * scale, min(base, stage.plateau.min_lr))
    warmup = _warmup_steps(stage, length)
    if step < warmup:
        return base * (step + 1) / (warmup + 1)
    schedule = stage.rate_schedule
    if schedule.name == "step":
        return base * _staircase(schedule, step // length.unit)
    if schedule.name == "cosine":
        end, total = schedule.min_lr or 0.0, max(1, length.steps - warmup)
        return end + (base - end) * 0.5 * (1 + math.cos(math.pi * min(step - warmup, total) / total))
    if schedule.name == "one-cycle":
        start = base / _or(schedule.div_factor, 25.0)
        end = start / _or(schedule.final_div_factor, 1e4)
        return _one_cycle(schedule, step, length.steps, (start, base, end))
    return base


def momentum_at(stage: Stage, step: int, length: Length) -> float | None:
    """Return the momentum (or Adam's first beta) of a step where the schedule moves it, else None."""
    schedule = stage.rate_schedule
    if schedule.name != "one-cycle" or schedule.cycle_momentum is False:
        return None
    low, high = _MOMENTUM
    return _one_cycle(schedule, step, length.steps, (high, low, high))


def _warmup_steps(stage: Stage, length: Length) -> int:
    return stage.warmup_steps or round(stage.warmup_epochs * length.steps_per_epoch)


def _staircase(schedule: Schedule, unit: int) -> float:
    passed = unit // schedule.every if schedule.every else bisect_right(schedule.milestones or (), unit)
    return math.pow(_or(schedule.gamma, 0.1), passed)


def _one_cycle(schedule: Schedule, step: int, total: int, values: tuple[float, float, float]) -> float:
    """Return half a cosine from the first value to the second, half a one to the third (torch's two-phase cycle)."""
    peak = _or(schedule.pct_start, 0.3) * total - 1
    if step <= peak:
        return _half_cosine(values[0], values[1], step / peak if peak else 1.0)
    left = total - 1 - peak
    return _half_cosine(values[1], values[2], (step - peak) / left if left else 1.0)


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (math.cos(math.pi * share) + 1)


def _or(value: float | None, default: float) -> float:
    return default if value is None else value


def is_better(value: float, best: float | None, mode: str, min_delta: float = 0.0) -> bool:
    """Return whether `value` beats `best` by more than `min_delta`; any value beats None, NaN beats nothing else."""
    if best is None:
        return True
    return value + min_delta < best if mode == "min" else value - min_delta > best


@dataclass
class EarlyStoppingState:
    """Decides at each epoch's end as Keras's EarlyStopping does.

    Attributes:
        best: The best value so far, None before the first; a NaN that came first is never beaten, as in Keras.
        wait: Epochs since the last improvement that counts.
        epoch: Epochs seen.
        improved: Whether the last epoch is the best so far.
    """

    best: float | None = None
    wait: int = 0
    epoch: int = 0
    improved: bool = False

    def should_stop(self, rule: EarlyStopping, value: float) -> bool:
        """Update the rule with an epoch's value; returns whether the stage is to end."""
        epoch, self.epoch, self.improved = self.epoch, self.epoch + 1, False
        if epoch < rule.start_from_epoch:
            return False
        mode = rule.mode or mode_of(rule.monitor)
        self.wait += 1
        if is_better(value, self.best, mode, rule.min_delta):
            self.best, self.improved = value, True
            if rule.baseline is None or is_better(value, rule.baseline, mode, rule.min_delta):
                self.wait = 0
        return self.is_over(rule)

    def is_over(self, rule: EarlyStopping) -> bool:
        """Return whether the stage is to end at this point; the rule may be another one than before."""
        is_watching = self.epoch > max(rule.start_from_epoch, 1)
        return is_watching and not self.improved and self.wait >= rule.patience


@dataclass
class PlateauState:
    """Lowers the rate as Keras's ReduceLROnPlateau does.

    Attributes:
        best: The best value so far, None before the first.
        wait: Epochs since the last improvement.
        cooldown: Epochs in which nothing is counted yet.
        scale: The product of all factors so far.
    """

    best: float | None = None
    wait: int = 0
    cooldown: int = 0
    scale: float = 1.0

    def update(self, rule: Plateau, value: float, base_lr: float) -> bool:
        """Update the rule with an epoch's value; returns whether the rate, at most `base_lr`, was lowered."""
        if self.cooldown > 0:
            self.cooldown -= 1
            self.wait = 0
        if is_better(value, self.best, rule.mode or mode_of(rule.monitor), rule.min_delta):
            self.best, self.wait = value, 0
            return False
        if self.cooldown > 0:
            return False
        self.wait += 1
        if self.wait < rule.patience or self.scale * base_lr <= rule.min_lr:
            return False
        self.scale *= rule.factor
        self.cooldown, self.wait = rule.cooldown, 0
        return True
