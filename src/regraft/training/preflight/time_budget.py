"""How long stages may be that do not say, so that a run ends within a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from regraft.errors import SettingsError
from regraft.plan.length import length_of
from regraft.settings.stage import Stage
from regraft.training.preflight.forecast import Forecast, Tried
from regraft.wording import duration

__all__ = ["MOST_EPOCHS", "FittedStages", "open_places", "plan_within"]

_KEPT_BACK = 0.06  # of the time: what a forecast leaves out, as `benchmarks/forecast.py` measures it
MOST_EPOCHS = 40.0
_LEAST_EPOCHS = 0.25  # of a stage that is worth beginning: its network is delivered only where it is better
_WARMUP = 0.25  # of a stage that is shorter than twice its warm-up


@dataclass(frozen=True)
class FittedStages:
    """Stages that fit into a time.

    Attributes:
        stages: Those that there is time for, each with its length.
        expected: What they will take.
        reasons: What was chosen and why, a line each.
    """

    stages: tuple[Stage, ...]
    expected: Forecast
    reasons: tuple[str, ...]


def open_places(asked: Sequence[Stage], resolved: Sequence[Stage]) -> list[int]:
    """Return the places of stages whose length is left to the budget: they say none, and are not solved."""
    return [
        place
        for place, (stage, planned) in enumerate(zip(asked, resolved, strict=True))
        if stage.epochs is None and stage.steps is None and planned.optimizer != "lbfgs"
    ]


def plan_within(asked: Sequence[Stage], resolved: Sequence[Stage], tried: Tried, seconds: float) -> FittedStages:
    """Give the stages without a length as many epochs, the same for each, as the time allows; leave out those at the
    end that get less than a quarter.

    Args:
        asked: The stages as they are asked for.
        resolved: The same of a plan, as they were tried: the optimizer is known.
        tried: What they cost.
        seconds: The whole run's, from the start of the program to the report.

    Raises:
        SettingsError: What is left, which has a length of its own or none, takes longer.
    """
    places = open_places(asked, resolved)
    left, stages, reasons = seconds * (1 - _KEPT_BACK), tuple(resolved), []
    while (least := tried.forecast(_lengthened(stages, places, _LEAST_EPOCHS, tried)).seconds) > left:
        if len(stages) == 1 or not places or places[-1] != len(stages) - 1:
            raise _too_short(least, seconds)
        run = f"the run with {_LEAST_EPOCHS:g} epochs of it takes about {least:.0f} s"
        reasons.append(f"stage {stages[-1].name}: left out; {run}")
        stages, places = stages[:-1], places[:-1]
    epochs = _most_epochs(stages, places, tried, left)
    planned = tuple(_lengthened(stages, places, epochs, tried))
    long = f"{epochs:.1f} epochs" + (", the most that a budget gives" if epochs == MOST_EPOCHS else "")
    reasons += [f"stage {planned[place].name}: {planned[place].steps} steps, {long}" for place in places]
    expected = tried.forecast(planned)
    return FittedStages(planned, expected, (*reasons, f"expected: about {expected.seconds:.0f} s"))


def _most_epochs(stages: Sequence[Stage], places: Sequence[int], tried: Tried, seconds: float) -> float:
    low, high = _LEAST_EPOCHS, MOST_EPOCHS
    if tried.forecast(_lengthened(stages, places, high, tried)).seconds <= seconds:
        return high
    for _ in range(30):
        middle = (low + high) / 2
        fits = tried.forecast(_lengthened(stages, places, middle, tried)).seconds <= seconds
        low, high = (middle, high) if fits else (low, middle)
    return low


def _lengthened(stages: Sequence[Stage], places: Sequence[int], epochs: float, tried: Tried) -> list[Stage]:
    """Return the stages, those at `places` so many epochs long, given in steps."""
    lengthened = list(stages)
    for place in places:
        stage = replace(stages[place], epochs=1, steps=None)
        length = length_of(stage, tried.images.train, stage.batch_size or tried.images.batch_size)
        steps = max(1, int(epochs * length.steps_per_epoch))
        lengthened[place] = replace(_warmed_up(stage, steps, length.steps_per_epoch), epochs=None, steps=steps)
    return lengthened


def _warmed_up(stage: Stage, steps: int, steps_per_epoch: int) -> Stage:
    """Return the stage, with a shorter warm-up where it would hardly leave its own."""
    warmup = stage.warmup_steps or round(stage.warmup_epochs * steps_per_epoch)
    return replace(stage, warmup_steps=int(_WARMUP * steps), warmup_epochs=0.0) if 2 * warmup > steps else stage


def _too_short(least: float, seconds: float) -> SettingsError:
    return SettingsError(
        f"A budget of {duration(seconds)} is too short for this run on this machine.",
        f"at least about {duration(math.ceil(least / (1 - _KEPT_BACK)))}",
        "a longer `--budget`, a smaller `--image-size`, or fewer epochs in stages that set their own",
    )
