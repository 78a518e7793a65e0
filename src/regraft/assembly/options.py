"""What a recipe says of how its run is carried out."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any

from torch import nn

from regraft.compute.numerics import Numerics, choose_numerics
from regraft.models.describe.info import preprocessing_of
from regraft.recipe.recipe import Recipe, validate_recipe
from regraft.run.changes import RunPosition, differences, is_of_network, require_allowed
from regraft.run.folder import RunFolder
from regraft.training.features.feature_pass import FeatureCache
from regraft.training.options import RunOptions
from regraft.training.preflight.fastest import measured_numerics

__all__ = ["feature_cache_of", "measured", "numerics_for", "options_for", "stored_settings", "write_notes"]

_log = logging.getLogger("regraft")


def options_for(recipe: Recipe) -> RunOptions:
    """Return the options of the recipe's run, with device and precision resolved for this machine."""
    return RunOptions(
        seed=recipe.seed,
        batch_size=recipe.data.batch_size,
        monitor=recipe.monitor,
        mode=recipe.mode,
        numerics=numerics_for(recipe),
        save_steps=recipe.save_steps,
        cache=recipe.data.cache,
        feature_cache=feature_cache_of(recipe),
        log=recipe.log,
    )


def feature_cache_of(recipe: Recipe) -> FeatureCache:
    """Return `auto`, `off`, or the number of views."""
    cache = recipe.feature_cache
    return cache if isinstance(cache, str) else cache.views


def numerics_for(recipe: Recipe) -> Numerics:
    """Return the recipe's device, precision and memory format, resolved for this machine."""
    settings = recipe.numerics
    return choose_numerics(
        settings.device,
        settings.precision,
        settings.threads,
        channels_last=settings.channels_last,
        inference=settings.inference,
    )


def measured(options: RunOptions, recipe: Recipe, model: nn.Module) -> RunOptions:
    """Return the options of a new run, with the fastest numerics where the recipe asks to measure them."""
    if options.numerics is None or recipe.numerics.choose == "table":
        return options
    numerics = measured_numerics(
        model,
        options.numerics,
        image_size=preprocessing_of(model).pixels.size,
        batch_size=recipe.data.batch_size,
        precision=recipe.numerics.precision,
        say=_log.info,
    )
    return replace(options, numerics=numerics)


def stored_settings(run: RunFolder, recipe: Recipe) -> dict[str, Any]:
    """Return the network and data settings of a resumed run, as its own recipe has them.

    Args:
        run: The run's folder.
        recipe: The settings to go on with.

    Raises:
        SettingsError: They name another network, head or image size.
    """
    stored = run.settings()
    asked = differences(validate_recipe(stored).model_dump(), recipe.model_dump())
    network = {key: pair for key, pair in asked.items() if is_of_network(key) and pair[1] is not None}
    require_allowed(run, network, (), RunPosition(0, begun=False, ended=False), ())
    source = recipe.data.source or stored["data"]["source"]
    return {"model": stored["model"], "head": stored["head"], "data": {**stored["data"], "source": source}}


def write_notes(recipe: Recipe) -> None:
    """Log what the reader of a recipe should know."""
    for note in recipe.notes:
        _log.info("note: %s", note)
