"""The learning-rate range test of a recipe's stage. Writes nothing."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from regraft.assembly.choosing import with_network
from regraft.assembly.data import opened_recipe
from regraft.assembly.network import network_for
from regraft.assembly.options import numerics_for
from regraft.data.dataset import DataSet
from regraft.errors import SettingsError, did_you_mean
from regraft.plan.make import make_plan
from regraft.recipe.recipe import Recipe
from regraft.training.preflight.find_lr import RangeTest, find_lr

__all__ = ["range_test"]

_log = logging.getLogger("regraft")


def range_test(
    recipe: Recipe | Mapping[str, Any], *, stage: str | None = None, data: DataSet | None = None, **options: Any
) -> RangeTest:
    """Return the learning-rate range test of a recipe's stage, from the recipe's weights. Writes nothing.

    Args:
        recipe: Checked settings, or plain data that is checked first.
        stage: Its name; None takes the first stage that has a learning rate.
        data: The images, where they were opened before; None opens `data.source`.
        options: `start`, `end` and `steps` of `find_lr`.

    Raises:
        SettingsError: The recipe has no such stage.
    """
    recipe, data = opened_recipe(recipe, data)
    recipe, reasons, _ = with_network(recipe, data)
    for line in reasons:
        _log.info("%s", line)
    model = network_for(recipe, data)
    plan = make_plan(model, recipe.stages)
    for chosen in plan:
        if chosen.name == stage or (stage is None and chosen.optimizer != "lbfgs"):
            size = recipe.data.batch_size
            return find_lr(
                model, chosen, data, batch_size=size, seed=recipe.seed, numerics=numerics_for(recipe), **options
            )
    names = [chosen.name for chosen in plan]
    raise SettingsError(
        "No stage of this recipe has a learning rate."
        if stage is None
        else f"The recipe has no stage {stage!r}{did_you_mean(stage, names)}",
        f"its stages are: {', '.join(names)}",
        "name one of them with `--stage`, or set `stages.0.optimizer=adamw`",
    )
