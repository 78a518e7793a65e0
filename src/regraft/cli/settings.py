"""One recipe from a file, options and `--set`: the later wins over the earlier."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from regraft.data.dataset import DataSet
    from regraft.recipe import Recipe

__all__ = ["opened_recipe"]


def opened_recipe(
    recipe: Path | None, options: Mapping[str, Any], assignments: Sequence[str] | None
) -> tuple[Recipe, DataSet | None]:
    """The recipe of a command, and the photos that it names.

    Which stages are usual depends on the photos, so these are opened before a recipe without stages is filled up; their
    mistakes are told before torch and timm, which take seconds, are imported.

    Args:
        recipe: A YAML file; None takes the recipe of a run without options.
        options: Values by dotted key; those that are None were not given.
        assignments: `key=value`, as `--set` has them.

    Raises:
        SettingsError: All mistakes at once.
        DataError: Whatever is wrong with the photos.
    """
    from regraft.data.usual_size import usual_size
    from regraft.errors import SettingsError
    from regraft.recipe import default_recipe

    said, assignments = _said(recipe, options), assignments or ()
    data, usual = None, default_recipe()
    if "stages" not in said:
        try:
            data = _opened(_checked(said, [text for text in assignments if not text.startswith("stages.")], usual))
        except SettingsError:
            _checked(said, assignments, usual)  # tells the mistakes of the stages too
            raise
        usual = default_recipe(None if data is None else usual_size(data))
    checked = _checked(said, assignments, usual)
    return checked, _opened(checked) if data is None else data


def _said(recipe: Path | None, options: Mapping[str, Any]) -> dict[str, Any]:
    from regraft.recipe import read_recipe

    values = read_recipe(recipe) if recipe is not None else {}
    if options.get("data.source") is not None and isinstance(values.get("data"), dict) and values["data"].get("source"):
        values["data"].pop("labels", None)  # they belong to the source that is replaced
    for key, value in options.items():
        if value is not None:
            _put(values, key, value)
    return values


def _checked(said: Mapping[str, Any], assignments: Sequence[str], usual: Mapping[str, Any]) -> Recipe:
    from regraft.recipe import apply_set, validate_recipe

    values = copy.deepcopy(dict(said))
    for assignment in assignments:
        apply_set(values, assignment, usual)
    return validate_recipe(values, usual)


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
