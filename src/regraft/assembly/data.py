"""The data of a recipe: opened, or the very rows that a run began with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from regraft.data.dataset import DataSet
from regraft.data.files import access
from regraft.data.masks.default_size import default_size
from regraft.data.open import open_data
from regraft.data.sources.far import far_source, is_far
from regraft.data.sources.labels.folder import missing_folder
from regraft.errors import DataError, SettingsError
from regraft.models.networks.builtin_models import SEGMENTERS
from regraft.recipe.recipe import Recipe, default_recipe, validate_recipe
from regraft.run.folder import RunFolder

__all__ = ["opened_recipe", "stored_data"]


def opened_recipe(recipe: Recipe | Mapping[str, Any], data: DataSet | None = None) -> tuple[Recipe, DataSet]:
    """Return the checked recipe and its data set; plain data without stages is completed with the default ones.

    Args:
        recipe: Checked settings, which are taken as they are, or plain data.
        data: The images, where they were opened before; None opens `data.source`.
    """
    if isinstance(recipe, Recipe):
        data = data or _open(recipe)
    else:
        checked = validate_recipe(recipe)
        data = data or _open(checked)
        usual = default_recipe(default_size(data), num_images=len(data.train), has_budget=checked.budget is not None)
        recipe = validate_recipe(recipe, usual)
    _require_task(recipe, data)
    return recipe, data


def stored_data(run: RunFolder, recipe: Recipe) -> DataSet:
    """Return the rows that the run began with; a run that was killed before they were listed lists them again."""
    stored = run.read(run.splits)
    if stored is None:
        return _open(recipe)
    data = DataSet.from_dict(stored).moved_to(recipe.data.source)
    if is_far(data.source) and not access.is_folder(data.root):
        far_source(data.source)  # what is known of it has left the cache
    _require_some_file(data)
    return data


def _require_some_file(data: DataSet) -> None:
    """Refuse a data folder that holds none of the run's images: it was mistyped, or moved away.

    Raises:
        DataError: There is no such folder, or none of its images there.
    """
    if not len(data.train) or any(access.exists(path) for path in data.train.paths):
        return
    if not access.is_folder(data.root):
        raise missing_folder(Path(data.root))
    raise DataError(
        f"None of the {len(data.train)} training images of the run is in {data.root!r}.",
        "the folder that holds the images of the run",
        f"`--set data.source=FOLDER`; the first image looked for is {data.train.paths[0]!r}",
    )


def _require_task(recipe: Recipe, data: DataSet) -> None:
    """Refuse a network for segmentation on images without masks, before its weights are looked for.

    Raises:
        SettingsError: It is one.
    """
    name = recipe.model.name
    asked = "head.output is segmentation" if recipe.head.output == "segmentation" else ""
    asked = f"{name!r} is a network for segmentation" if name in SEGMENTERS else asked
    if asked and not data.segmentation:
        raise SettingsError(
            f"{asked}, and the images of {data.source or data.name!r} have classes, not masks.",
            "images/ and masks/, or another network",
            "say where the masks lie (`--masks FOLDER`), or leave `--model` out for a classifier",
        )


def _open(recipe: Recipe) -> DataSet:
    if recipe.data.source is None:
        raise SettingsError(
            "No data source was given.",
            "a folder of classes (root/class/*, or root/{train,val,test}/class/*), a list or a table",
            "`regraft train DATA`, or set data.source in the recipe",
        )
    return open_data(recipe.data.source, seed=recipe.seed, **recipe.data.choices())
