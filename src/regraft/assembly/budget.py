"""The stages of a recipe, tried on its network and images: what they take, and how long they may be in a budget."""

from __future__ import annotations

import time
from dataclasses import dataclass

from torch import nn

from regraft.assembly.options import feature_cache_of
from regraft.compute.numerics import Numerics
from regraft.data.dataset import DataSet
from regraft.errors import SettingsError
from regraft.machine.processes import num_processes
from regraft.plan.make import Plan, make_plan
from regraft.recipe.recipe import Recipe
from regraft.settings.duration import seconds_of
from regraft.training.preflight.budget import is_open, plan_within
from regraft.training.preflight.forecast import Forecast, RunSize, Tried, try_stages

__all__ = ["Clock", "expected_of", "planned"]


@dataclass(frozen=True)
class Clock:
    """When a command began, and how long it took to build the network.

    Attributes:
        started: When the program did, as `time.perf_counter` tells it.
        building: Seconds of building the network; they are part of what has passed.
    """

    started: float
    building: float


def planned(
    recipe: Recipe, model: nn.Module, data: DataSet, numerics: Numerics, clock: Clock
) -> tuple[Plan, tuple[str, ...]]:
    """Return the plan of a recipe, its stages as long as its budget allows, and what was chosen and why.

    Raises:
        SettingsError: The budget is too short, or several processes share the run.
    """
    plan = make_plan(model, recipe.stages)
    if recipe.budget is None:
        return plan, ()
    if not any(is_open(stage) for stage in recipe.stages):
        return plan, ("budget: no effect; every stage says how long it is",)
    if num_processes() > 1:
        raise SettingsError("A budget plans for one process, and several share this run.", "", "set `epochs` instead")
    seconds = seconds_of(recipe.budget)
    tried = _tried(recipe, model, plan, data, numerics, clock)
    found = plan_within(recipe.stages, plan.stages, tried, seconds)
    return make_plan(model, found.stages), tuple(f"budget {recipe.budget}: {reason}" for reason in found.reasons)


def expected_of(
    recipe: Recipe, model: nn.Module, plan: Plan, data: DataSet, numerics: Numerics, clock: Clock
) -> Forecast:
    """Return what the run of a plan takes on this machine."""
    return _tried(recipe, model, plan, data, numerics, clock).forecast(plan.stages)


def _tried(recipe: Recipe, model: nn.Module, plan: Plan, data: DataSet, numerics: Numerics, clock: Clock) -> Tried:
    num_test = 0 if data.test is None else len(data.test)
    size = RunSize(len(data.train), len(data.val), recipe.data.batch_size, feature_cache_of(recipe), num_test)
    starting, paths = time.perf_counter() - clock.started, data.train.paths
    return try_stages(model, plan, size, numerics, paths=paths, starting=starting, building=clock.building)
