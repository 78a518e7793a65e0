"""Learning rates over a stage, and the decisions that follow a watched metric."""

from __future__ import annotations

import math
from dataclasses import dataclass

from regraft.plan.stages import EarlyStopping, Plateau, Stage

__all__ = ["EarlyStoppingState", "PlateauState", "is_better", "rate_factor", "worst"]


def rate_factor(stage: Stage, step: int, steps_per_epoch: int) -> float:
    """The factor on the learning rate of the `step`-th step (from 0) of a stage.

    Linear warm-up to 1, then constant, or half a cosine to 0 over the rest of the stage (Loshchilov & Hutter 2016,
    arXiv:1608.03983, without restarts).
    """
    warmup = round(stage.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if stage.schedule == "constant":
        return 1.0
    total = max(1, stage.epochs * steps_per_epoch - warmup)
    return 0.5 * (1 + math.cos(math.pi * min(step - warmup, total) / total))


def worst(mode: str) -> float:
    """The value that every real one is better than."""
    return math.inf if mode == "min" else -math.inf


def is_better(value: float, best: float, mode: str, min_delta: float = 0.0) -> bool:
    """Whether `value` beats `best` by more than `min_delta`; NaN never does."""
    return value < best - min_delta if mode == "min" else value > best + min_delta


def mode_of(monitor: str) -> str:
    """Losses are better when smaller, all other metrics when larger."""
    return "min" if monitor.endswith("loss") else "max"


@dataclass
class EarlyStoppingState:
    """Decides at each epoch's end as Keras's EarlyStopping does."""

    best: float
    wait: int = 0

    @classmethod
    def start(cls, settings: EarlyStopping) -> EarlyStoppingState:
        return cls(best=worst(mode_of(settings.monitor)))

    def should_stop(self, settings: EarlyStopping, value: float) -> bool:
        """Take in an epoch's value; True when the stage is to end."""
        self.wait += 1
        if is_better(value, self.best, mode_of(settings.monitor), settings.min_delta):
            self.best, self.wait = value, 0
        return self.wait >= settings.patience


@dataclass
class PlateauState:
    """Lowers the rate as Keras's ReduceLROnPlateau does; `scale` is the product of all its factors so far."""

    best: float
    wait: int = 0
    cooldown: int = 0
    scale: float = 1.0

    @classmethod
    def start(cls, settings: Plateau) -> PlateauState:
        return cls(best=worst(mode_of(settings.monitor)))

    def update(self, settings: Plateau, value: float, base_lr: float) -> bool:
        """Take in an epoch's value; True when the rate was lowered."""
        if self.cooldown > 0:
            self.cooldown -= 1
            self.wait = 0
        if is_better(value, self.best, mode_of(settings.monitor), settings.min_delta):
            self.best, self.wait = value, 0
            return False
        if self.cooldown > 0:
            return False
        self.wait += 1
        if self.wait < settings.patience or self.scale * base_lr <= settings.min_lr:
            return False
        self.scale = max(self.scale * settings.factor, settings.min_lr / base_lr)
        self.cooldown, self.wait = settings.cooldown, 0
        return True
