"""Rules that watch a metric: when a stage ends early, and when its learning rate is lowered."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from regraft.settings.strict import FactorBelowOne, NotNegative, Number, WholeNotNegative, settings

__all__ = ["DEFAULT_MONITOR", "EarlyStopping", "Mode", "Monitor", "Plateau", "mode_of"]

DEFAULT_MONITOR = "val_calibrated_loss"  # comparable between stages and epochs, whatever their loss was
Mode = Literal["min", "max"]


def mode_of(monitor: str) -> Mode:
    """Return the natural direction of a metric: losses are better when smaller, all others when larger."""
    return "min" if monitor.endswith("loss") else "max"


def _is_metric(name: str) -> str:
    """Return the metric's name, checked by its form alone: which metrics an epoch has depends on the head's output."""
    if name != "train_loss" and not re.fullmatch(r"val_[a-z0-9_]+", name):
        raise ValueError("must be a metric of an epoch, such as val_loss, val_top1, val_auc, val_map or train_loss")
    return name


Monitor = Annotated[str, AfterValidator(_is_metric)]


@settings
class EarlyStopping:
    """End a stage when `monitor` has not improved for `patience` epochs; decides as Keras's EarlyStopping."""

    monitor: Monitor = Field(default=DEFAULT_MONITOR, description="the metric to watch, as in metrics.jsonl")
    mode: Mode | None = Field(default=None, description="`min` or `max`; null: known from the metric's name")
    patience: WholeNotNegative = Field(default=3, description="epochs without improvement that end the stage")
    min_delta: NotNegative = Field(default=0.0, description="an improvement is a change by more than this")
    start_from_epoch: WholeNotNegative = Field(default=0, description="epochs at the start that are not monitored")
    baseline: Number | None = Field(default=None, description="only improvements that also beat this value count")
    restore_best: bool = Field(
        default=False, description="the stage's best epoch is the best by this rule, and the next stage starts from it"
    )


@settings
class Plateau:
    """Multiply the learning rate by `factor` when `monitor` plateaus; decides as Keras's ReduceLROnPlateau."""

    monitor: Monitor = Field(default=DEFAULT_MONITOR, description="the metric to watch, as in metrics.jsonl")
    mode: Mode | None = Field(default=None, description="`min` or `max`; null: known from the metric's name")
    factor: FactorBelowOne = Field(default=0.1, description="factor on the learning rates")
    patience: WholeNotNegative = Field(default=10, description="epochs without improvement that lower the rates")
    min_delta: NotNegative = Field(default=1e-4, description="an improvement is a change by more than this")
    cooldown: WholeNotNegative = Field(default=0, description="epochs after a reduction in which nothing is counted")
    min_lr: NotNegative = Field(default=0.0, description="lower bound of the learning rates")
