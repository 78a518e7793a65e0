"""How a stage's learning rate changes and when the stage ends: the settings; `train.schedule` carries them out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["SCHEDULES", "EarlyStopping", "Plateau", "Schedule"]

SCHEDULES = ("constant", "step", "cosine", "one-cycle")
# Which settings each schedule reads, beside its name.
_READS = {
    "constant": (),
    "step": ("every", "milestones", "gamma"),
    "cosine": ("min_lr",),
    "one-cycle": ("pct_start", "div_factor", "final_div_factor", "cycle_momentum"),
}


@dataclass(frozen=True)
class Schedule:
    """How the learning rate goes over a stage. Counts are epochs, or steps in a stage that is given in steps.

    Attributes:
        name: `constant`; `step`: times `gamma` at each milestone; `cosine`: half a cosine down to `min_lr`
            (Loshchilov and Hutter 2016, arXiv:1608.03983, without restarts); `one-cycle`: up, then down to next to
            nothing, momentum the other way (Smith and Topin 2017, arXiv:1708.07120, as torch's OneCycleLR).
        every: For step: a milestone at every so many.
        milestones: For step: when the rate is multiplied by gamma.
        gamma: For step: the factor; None takes 0.1.
        min_lr: For cosine: the rate at its end; None takes 0.
        pct_start: For one-cycle: the share of the stage in which the rate rises; None takes 0.3.
        div_factor: For one-cycle: the rate begins at this part of its peak; None takes 25.
        final_div_factor: For one-cycle: the rate ends at this part of where it began; None takes 10,000.
        cycle_momentum: For one-cycle: whether momentum goes from 0.95 to 0.85 and back; None takes True.
    """

    name: str = "constant"
    every: int | None = None
    milestones: tuple[int, ...] | None = None
    gamma: float | None = None
    min_lr: float | None = None
    pct_start: float | None = None
    div_factor: float | None = None
    final_div_factor: float | None = None
    cycle_momentum: bool | None = None

    def __post_init__(self) -> None:
        if isinstance(self.milestones, list):  # as YAML gives it
            object.__setattr__(self, "milestones", tuple(self.milestones))

    def mistakes(self) -> Iterator[str]:
        """What is wrong with it, one line for each setting."""
        if self.name not in SCHEDULES:
            yield f"schedule is {self.name!r}; expected one of: {', '.join(SCHEDULES)}"
            return
        for name, value in vars(self).items():
            if name != "name" and value is not None and name not in _READS[self.name]:
                reads = ", ".join(_READS[self.name]) or "no further settings"
                yield f"schedule.{name} has no effect on {self.name}, which has {reads}"
        yield from self._out_of_range()
        if self.name == "step" and (self.every is None) == (self.milestones is None):
            yield "schedule step needs `every` or `milestones`, one of them"

    def _out_of_range(self) -> Iterator[str]:
        rules: dict[str, tuple[Callable[[Any], bool], str]] = {
            "every": (lambda v: v >= 1, "at least 1"),
            "milestones": (_are_rising, "rising numbers from 1 on"),
            "gamma": (lambda v: 0 < v <= 1, "more than 0 and at most 1"),
            "min_lr": (lambda v: v >= 0, "at least 0"),
            "pct_start": (lambda v: 0 <= v <= 1, "from 0 to 1"),
            "div_factor": (lambda v: v >= 1, "at least 1"),
            "final_div_factor": (lambda v: v >= 1, "at least 1"),
        }
        for name, (is_right, expected) in rules.items():
            value = getattr(self, name)
            if value is not None and not is_right(value):
                yield f"schedule.{name} is {value!r}; expected {expected}"


@dataclass(frozen=True)
class EarlyStopping:
    """End a stage when `monitor` has not improved for `patience` epochs; decides as Keras's EarlyStopping.

    Attributes:
        monitor: A measure of an epoch, as in metrics.jsonl.
        mode: `min` or `max`; None knows it from the measure's name.
        patience: Epochs without improvement that end the stage.
        min_delta: An improvement is a change by more than this.
        start_from_epoch: Epochs at the start that are not looked at.
        baseline: Only improvements that also beat this value count for the patience.
        restore_best: The stage's best epoch is the best by this rule, and what follows begins from it.
    """

    monitor: str = "val_loss"
    mode: str | None = None
    patience: int = 3
    min_delta: float = 0.0
    start_from_epoch: int = 0
    baseline: float | None = None
    restore_best: bool = False

    def mistakes(self) -> Iterator[str]:
        """What is wrong with it, one line for each setting."""
        yield from _watched("early_stopping", self.mode, self.min_delta)
        if self.patience < 0:
            yield f"early_stopping.patience is {self.patience!r}; expected at least 0"
        if self.start_from_epoch < 0:
            yield f"early_stopping.start_from_epoch is {self.start_from_epoch!r}; expected at least 0"


@dataclass(frozen=True)
class Plateau:
    """Multiply the learning rate by `factor` when `monitor` stands still; decides as Keras's ReduceLROnPlateau.

    Attributes:
        monitor: A measure of an epoch, as in metrics.jsonl.
        mode: `min` or `max`; None knows it from the measure's name.
        factor: What the rates are multiplied by.
        patience: Epochs without improvement that lower the rates.
        min_delta: An improvement is a change by more than this.
        cooldown: Epochs after a reduction in which nothing is counted.
        min_lr: No rate is lowered below this.
    """

    monitor: str = "val_loss"
    mode: str | None = None
    factor: float = 0.1
    patience: int = 10
    min_delta: float = 1e-4
    cooldown: int = 0
    min_lr: float = 0.0

    def mistakes(self) -> Iterator[str]:
        """What is wrong with it, one line for each setting."""
        yield from _watched("plateau", self.mode, self.min_delta)
        if not 0 < self.factor < 1:
            yield f"plateau.factor is {self.factor!r}; expected more than 0 and less than 1"
        for name in ("patience", "cooldown", "min_lr"):
            if getattr(self, name) < 0:
                yield f"plateau.{name} is {getattr(self, name)!r}; expected at least 0"


def _are_rising(milestones: Sequence[int]) -> bool:
    return bool(milestones) and milestones[0] >= 1 and list(milestones) == sorted(set(milestones))


def _watched(rule: str, mode: str | None, min_delta: float) -> Iterator[str]:
    if mode not in (None, "min", "max"):
        yield f"{rule}.mode is {mode!r}; expected min or max"
    if not min_delta >= 0:
        yield f"{rule}.min_delta is {min_delta!r}; expected at least 0"
