"""The stages of a recipe, tried on its network and images: what they take, and how long they may be in a budget."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from torch import nn

from regraft.assembly.options import feature_cache_of
from regraft.compute.numerics import Numerics
from regraft.data.dataset import DataSet
from regraft.errors import SettingsError
from regraft.machine.processes import num_processes
from regraft.plan.length import length_of
from regraft.plan.make import Plan, make_plan
from regraft.recipe.recipe import Recipe
from regraft.settings.duration import seconds_of
from regraft.settings.stage import Stage
from regraft.training.preflight.forecast import SECONDS, Forecast, RunSize, Tried, try_stages
from regraft.training.preflight.time_budget import open_places, plan_within

__all__ = ["Clock", "Planned", "epochs_within", "expected_of", "planned", "tried_in_budget"]

_TRIAL, _LONGEST_TRIAL = 0.05, 20.0  # of a budget, and in seconds: what the stages are tried for


@dataclass(frozen=True)
class Clock:
    """When a command began, and how long it took to build the network.

    Attributes:
        started: When the program did, as `time.perf_counter` tells it.
        building: Seconds of building the network; they are part of what has passed.
    """

    started: float
    building: float


class Planned(NamedTuple):
    """The plan of a recipe, and how it came about.

    Attributes:
        plan: The stages, those without a length as long as the budget allows.
        chosen: What was chosen and why, a line each.
        expected: What the run takes; None where there is no budget to plan for.
    """

    plan: Plan
    chosen: tuple[str, ...] = ()
    expected: Forecast | None = None


def planned(
    recipe: Recipe, model: nn.Module, data: DataSet, numerics: Numerics, clock: Clock, trial: Tried | None = None
) -> Planned:
    """Return the plan of a recipe, its stages as long as its budget allows.

    Args:
        recipe: Checked settings.
        model: Its network.
        data: The images.
        numerics: What to compute with.
        clock: When the run began.
        trial: What a choice of the network has found out about the stages; None: they are tried here.

    Raises:
        SettingsError: The budget is too short, or several processes share the run.
    """
    plan = make_plan(model, recipe.stages)
    resolved = tuple(_resolved(recipe.stages, plan.stages))
    if recipe.budget is None:
        return Planned(plan, resolved)
    if not open_places(recipe.stages, plan.stages):
        return Planned(plan, (*resolved, "budget: no effect; no stage leaves its length open"))
    if num_processes() > 1:
        raise SettingsError("A budget plans for one process, and several share this run.", "", "set `epochs` instead")
    seconds = seconds_of(recipe.budget)
    tried = trial or tried_in_budget(recipe, model, data, numerics, clock)
    tried = replace(tried, starting=time.perf_counter() - clock.started)  # the trial is part of the run
    found = plan_within(recipe.stages, plan.stages, tried, seconds)
    budgeted = (f"budget {recipe.budget}: {reason}" for reason in found.reasons)
    return Planned(make_plan(model, found.stages), (*resolved, *budgeted), found.expected)


def tried_in_budget(recipe: Recipe, model: nn.Module, data: DataSet, numerics: Numerics, clock: Clock) -> Tried:
    """Return what the stages of a recipe cost, tried for a small share of its budget."""
    seconds = min(max(SECONDS, _TRIAL * seconds_of(recipe.budget or "")), _LONGEST_TRIAL)
    return _tried(recipe, model, make_plan(model, recipe.stages), data, numerics, clock, seconds)


def epochs_within(recipe: Recipe, model: nn.Module, tried: Tried, seconds: float) -> float | None:
    """Return how many epochs the last of the stages gets that leave their length open; 0 where there is no time for it,
    None where there is none for the stages before it.
    """
    plan = make_plan(model, recipe.stages)
    places = open_places(recipe.stages, plan.stages)
    try:
        found = plan_within(recipe.stages, plan.stages, tried, seconds).stages
    except SettingsError:
        return None
    if len(found) <= places[-1]:
        return 0.0
    stage = found[places[-1]]
    once = length_of(
        replace(stage, epochs=1, steps=None), tried.images.train, stage.batch_size or tried.images.batch_size
    )
    return (stage.steps or 0) / once.steps_per_epoch


def _resolved(asked: Sequence[Stage], resolved: Sequence[Stage]) -> Iterator[str]:
    """Yield what the network decided where a stage says `auto`."""
    for stage, found in zip(asked, resolved, strict=True):
        if stage.lr == "auto":
            yield f"stage {stage.name}: lr {found.lr:g} (auto: by {found.optimizer}, and whether the network has norms)"
        if stage.train_image_size == "auto" and found.train_image_size is not None:
            size = "x".join(map(str, found.train_size or ()))
            yield f"stage {stage.name}: trains on {size} images (auto: 6/7 of those that are validated)"


def expected_of(
    recipe: Recipe, model: nn.Module, plan: Plan, data: DataSet, numerics: Numerics, clock: Clock
) -> Forecast:
    """Return the forecast of a plan's run on this machine: its time and memory."""
    return _tried(recipe, model, plan, data, numerics, clock, SECONDS).forecast(plan.stages)


def _tried(
    recipe: Recipe, model: nn.Module, plan: Plan, data: DataSet, numerics: Numerics, clock: Clock, seconds: float
) -> Tried:
    num_test = 0 if data.test is None else len(data.test)
    size = RunSize(len(data.train), len(data.val), recipe.data.batch_size, feature_cache_of(recipe), num_test)
    starting, paths = time.perf_counter() - clock.started, data.train.paths
    building = clock.building
    return try_stages(model, plan, size, numerics, paths=paths, starting=starting, building=building, seconds=seconds)
