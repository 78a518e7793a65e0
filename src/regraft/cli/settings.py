"""One recipe from a file, options and `--set`: the later wins over the earlier."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from regraft.data.dataset import DataSet
    from regraft.recipe.recipe import Recipe

__all__ = ["opened_recipe"]


def opened_recipe(
    recipe: Path | None,
    options: Mapping[str, Any],
    assignments: Sequence[str] | None,
    *,
    stages: Sequence[str] | None = None,
) -> tuple[Recipe, DataSet | None]:
    """Return the recipe of a command, and the images that it names.

    Which stages are usual depends on the images, so these are opened before a recipe without stages is filled up; their
    mistakes are told before torch and timm, which take seconds, are imported.

    Args:
        recipe: A YAML file; None takes the recipe of a run without options.
        options: Values by dotted key; those that are None were not given.
        assignments: `key=value`, as `--set` has them.
        stages: The only ones to keep; None keeps all.

    Raises:
        SettingsError: All mistakes at once.
        DataError: Whatever is wrong with the images.
    """
    from regraft.data.masks.default_size import default_size
    from regraft.errors import SettingsError
    from regraft.recipe.recipe import default_recipe, is_of_stages, set_all

    said, assignments = _said(recipe, options), assignments or ()
    budgeted = copy.deepcopy(dict(said))
    set_all(budgeted, [text for text in assignments if text.startswith("budget=")])
    has_budget = budgeted.get("budget") is not None
    data, usual = None, default_recipe(has_budget=has_budget)
    if "stages" not in said:
        try:
            data = _opened(_checked(said, [text for text in assignments if not is_of_stages(text)], usual, None))
        except SettingsError:
            _checked(said, assignments, usual, stages)  # tells the mistakes of the stages too
            raise
        if data is not None:
            usual = default_recipe(default_size(data), num_images=len(data.train), has_budget=has_budget)
    checked = _checked(said, assignments, usual, stages)
    return checked, _opened(checked) if data is None else data


def _said(recipe: Path | None, options: Mapping[str, Any]) -> dict[str, Any]:
    from regraft.recipe.recipe import read_recipe

    values = read_recipe(recipe) if recipe is not None else {}
    if options.get("data.source") is not None and isinstance(values.get("data"), dict) and values["data"].get("source"):
        values["data"].pop("labels", None)  # they belong to the source that is replaced
    for key, value in options.items():
        if value is not None:
            _put(values, key, value)
    return values


def _checked(
    said: Mapping[str, Any], assignments: Sequence[str], usual: Mapping[str, Any], stages: Sequence[str] | None
) -> Recipe:
    from regraft.recipe.recipe import set_all, validate_recipe

    values = copy.deepcopy(dict(said))
    notes = set_all(values, assignments, usual, stages)
    checked = validate_recipe(values, usual).with_notes(notes)
    return checked if stages is None else checked.with_stages(stages)


def _opened(recipe: Recipe) -> DataSet | None:
    from regraft.data.open import open_data

    source = recipe.data.source
    return open_data(source, seed=recipe.seed, **recipe.data.choices()) if source is not None else None


def _put(values: dict[str, Any], key: str, value: Any) -> None:
    section, _, name = key.partition(".")
    if not name:
        values[section] = value
        return
    if not isinstance(values.get(section), dict):
        values[section] = {}
    values[section][name] = value
