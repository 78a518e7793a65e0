"""A dry run: what a recipe would do to the network, and how long each stage would take. Writes nothing."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from regraft.assembly.choosing import with_network
from regraft.assembly.data import opened_recipe
from regraft.assembly.network import before_surgery, surgery_for, unfilled_network
from regraft.assembly.options import numerics_for, write_notes
from regraft.assembly.planning import Clock, expected_of, planned
from regraft.data.check import check
from regraft.data.dataset import DataSet
from regraft.data.leaks import with_leaks
from regraft.models.surgery.preview import surgery_plan
from regraft.models.surgery.surgery import adapt
from regraft.plan.run_warnings import run_warnings
from regraft.recipe.recipe import Recipe
from regraft.training.loggers.registry import require_loggers
from regraft.training.preflight.compatibility import check_bands, check_filled, check_fit
from regraft.training.preflight.forecast_text import render_plan
from regraft.wording import quantity

__all__ = ["rehearse"]


def rehearse(recipe: Recipe | Mapping[str, Any], *, data: DataSet | None = None, started: float | None = None) -> str:
    """Return a dry run of `run_recipe` as plain text: the surgery, the stages, and the forecast of time and memory.

    Of weights, reads those of an earlier run alone, whose classes and head decide what is kept. Writes nothing, trains
    nothing but a copy on a few batches of noise, to see how long that takes.

    Args:
        recipe: Checked settings, or plain data that is checked first.
        data: The images, where they were opened before; None opens `data.source`.
        started: When the program did, as `time.perf_counter` tells it; None takes this call.

    Raises:
        RegraftError: Whatever `run_recipe` would raise before it reads weights.
    """
    started = time.perf_counter() if started is None else started
    recipe, data = opened_recipe(recipe, data)
    write_notes(recipe)
    require_loggers(recipe.log)
    recipe, reasons, tried = with_network(recipe, data, cache="ram", started=started)  # which writes nothing
    began = time.perf_counter()
    model = before_surgery(recipe, unfilled_network(recipe))
    surgery = surgery_for(recipe, model, data)
    check_bands(surgery["preprocessing"], data.train.paths, recipe.stages)
    adapted = adapt(model, **surgery)
    clock, numerics = Clock(started, time.perf_counter() - began), numerics_for(recipe)
    plan, chosen, expected = planned(recipe, adapted, data, numerics, clock, tried)
    check_fit(adapted, data, plan, recipe.monitor, recipe.data.batch_size)
    expected = expected or expected_of(recipe, adapted, plan, data, numerics, clock)
    num_train, classes = len(data.train), quantity(len(data.class_names), "class", "classes")
    images = f"images: {num_train} to train on, {len(data.val)} to validate, {classes}"
    unfilled = check_filled(adapted, plan) if recipe.model.weights == "none" else []
    found = run_warnings(plan, recipe.monitor, recipe.mode, num_train, recipe.data.batch_size)
    of_data = [finding.text for finding in check(with_leaks(data)) if finding.level == "warning"]
    warnings = [f"warning: {text}" for text in (*of_data, *found, *unfilled)]
    return "\n".join(
        [
            surgery_plan(model, **surgery).render(),
            images,
            *reasons,
            *chosen,
            *warnings,
            render_plan(adapted, plan, expected),
        ]
    )
