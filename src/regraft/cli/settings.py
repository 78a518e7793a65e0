"""One recipe from a file, options and `--set`: the later wins over the earlier."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from regraft.data.dataset import DataSet
    from regraft.recipe import Recipe

__all__ = ["checked_recipe", "opened_data"]


def checked_recipe(recipe: Path | None, options: Mapping[str, Any], assignments: Sequence[str] | None) -> Recipe:
    """The recipe of a command.

    Args:
        recipe: A YAML file; None takes the recipe of a run without options.
        options: Values by dotted key; those that are None were not given.
        assignments: `key=value`, as `--set` has them.

    Raises:
        SettingsError: All mistakes at once.
    """
    from regraft.recipe import apply_set, default_recipe, read_recipe, validate_recipe

    values = read_recipe(recipe) if recipe is not None else {"model": default_recipe()["model"]}
    if options.get("data.source") is not None and isinstance(values.get("data"), dict) and values["data"].get("source"):
        values["data"].pop("labels", None)  # they belong to the source that is replaced
    for key, value in options.items():
        if value is not None:
            _put(values, key, value)
    for assignment in assignments or ():
        apply_set(values, assignment)
    return validate_recipe(values)


def opened_data(recipe: Recipe) -> DataSet | None:
    """The photos that a recipe names; their mistakes are told before torch and timm, which take seconds, are imported.

    Raises:
        DataError: Whatever is wrong with them.
    """
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
