"""A whole run as typed settings: read, checked all at once, written back.

`regraft train [DATA] --recipe FILE --set stages.1.lr=3e-5`: DATA replaces `data.source`, `--set` replaces one key.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PrivateAttr, ValidationError

from regraft.errors import SettingsError, did_you_mean
from regraft.recipe.aliases import rewrite_aliases
from regraft.recipe.defaults import default_recipe, fill
from regraft.recipe.schema import recipe_schema
from regraft.recipe.shortcuts import is_of_stages as _is_of_stages
from regraft.recipe.shortcuts import written_out
from regraft.recipe.text import apply_set, read_recipe
from regraft.settings.data import DataSettings
from regraft.settings.duration import Duration
from regraft.settings.head import Head
from regraft.settings.mistakes import fields_of, mistakes_of, unknown_key
from regraft.settings.model import ModelSettings
from regraft.settings.monitor import DEFAULT_MONITOR, Mode, Monitor
from regraft.settings.numerics import NumericsSettings
from regraft.settings.stage import EXCLUSIVE, Stage
from regraft.settings.strict import Count, Seed, Strict, off_word

__all__ = [
    "Recipe",
    "apply_set",
    "default_recipe",
    "is_of_stages",
    "read_recipe",
    "schema",
    "set_all",
    "validate_recipe",
]

_SMALL = 16  # pixels a side


class ViewSettings(Strict):
    """How many views of each augmented image are cached and cycled through."""

    views: Count = Field(description="cached views of each image, cycled through")


class Recipe(Strict):
    """A whole run."""

    model: ModelSettings = Field(ModelSettings(), description="which network, with which weights")
    head: Head = Field(Head(), description="the form of the new head")
    data: DataSettings = Field(DataSettings(), description="which images, and how they become pixels")
    seed: Seed = Field(0, description="seed of splits, order, augmentation, dropout, new layers")
    monitor: Monitor = Field(DEFAULT_MONITOR, description="the metric that selects the best epoch")
    mode: Mode | None = Field(None, description="`min` or `max`; null: known from the metric's name")
    defaults: dict[str, Any] = Field(default_factory=dict, description="settings of stages that do not set their own")
    stages: list[Stage] = Field(min_length=1, description="the stages of training, in order")
    numerics: NumericsSettings = Field(NumericsSettings(), description="what to compute with")
    feature_cache: Annotated[Literal["auto", "off"] | ViewSettings, BeforeValidator(off_word)] = Field(
        "auto", description="features of the frozen part: cached, or recomputed; or K cached views of augmented images"
    )
    budget: Duration | None = Field(
        None,
        description="time for the whole run on this machine, as 10m: stages without a length get as many steps as it "
        "allows",
    )
    save_steps: Count | None = Field(None, description="save a checkpoint every so many optimizer steps too")
    log: list[str] = Field(["tensorboard"], description="loggers: tensorboard, wandb, mlflow ...")

    _notes: tuple[str, ...] = PrivateAttr(())

    @property
    def notes(self) -> tuple[str, ...]:
        """What to tell the user: settings that were rewritten when read, and settings without effect."""
        return self._notes

    def with_notes(self, notes: Sequence[str]) -> Recipe:
        """Add notes, in place; return the recipe itself."""
        self._notes = (*self._notes, *notes)
        return self

    def with_stages(self, names: Sequence[str]) -> Recipe:
        """Return the recipe with only the stages of these names, in the recipe's order.

        Raises:
            SettingsError: A name that no stage has.
        """
        known = [stage.name for stage in self.stages]
        unknown = [name for name in names if name not in known]
        if unknown:
            raise SettingsError(
                f"The recipe has no stage {', '.join(map(repr, unknown))}{did_you_mean(unknown[0], known)}",
                f"its stages are: {', '.join(known)}",
                f"`--stages {','.join(known)}`, or one of them",
            )
        return self.model_copy(update={"stages": [stage for stage in self.stages if stage.name in names]})


def schema() -> dict[str, Any]:
    """Return the JSON schema of recipes, for editors."""
    return recipe_schema(Recipe)


def is_of_stages(assignment: str) -> bool:
    """Return whether `key=value`, as for `--set`, is about a stage."""
    return _is_of_stages(assignment, Recipe.model_fields)


def set_all(
    values: dict[str, Any],
    assignments: Sequence[str],
    base: Mapping[str, Any] | None = None,
    stages: Sequence[str] | None = None,
) -> list[str]:
    """Apply `--set` to plain data, in place, short forms too; return notes on them.

    Args:
        values: The recipe.
        assignments: `key=value` each.
        base: Where the stages come from if the recipe has none; None: `default_recipe()`.
        stages: The names of those that will run; None: all.

    Raises:
        SettingsError: An assignment to a key that does not exist.
    """
    notes = []
    for assignment in assignments:
        stock = default_recipe() if base is None else base
        full, remarks = written_out(values, assignment, Recipe.model_fields, stock, stages)
        for text in full:
            apply_set(values, text, base)
        notes += remarks
    return notes


def validate_recipe(values: Mapping[str, Any], base: Mapping[str, Any] | None = None) -> Recipe:
    """Check plain data and return a recipe; Keras's spellings are rewritten, `defaults` go into the stages.

    Args:
        values: The recipe as plain data.
        base: What completes a recipe without stages; None: `default_recipe()`.

    Raises:
        SettingsError: All mistakes at once, each with its key and, for a misspelt key, the nearest name.
    """
    rewritten = rewrite_aliases(copy.deepcopy(dict(values)))
    filled, mistakes = _with_defaults(rewritten.values, default_recipe() if base is None else base)
    mistakes = [*rewritten.mistakes, *mistakes]
    recipe = None
    try:
        recipe = Recipe.model_validate(filled)
    except ValidationError as error:
        mistakes += mistakes_of(error, Recipe)
    if recipe is None or mistakes:
        raise SettingsError(
            f"The settings have {len(mistakes)} mistake{'s' if len(mistakes) > 1 else ''}.",
            "",
            "`regraft recipe` prints a whole recipe to compare with",
            details=mistakes,
        )
    recipe._notes = (*rewritten.notes, *_without_effect(recipe))
    return recipe


def _without_effect(recipe: Recipe) -> Iterator[str]:
    """Find settings that nothing reads; the plan does so for stages, because it knows what they resolve to."""
    head, model = recipe.head, recipe.model
    if head.activation != "relu" and not head.hidden:
        yield "head.activation has no effect without head.hidden"
    smallest = min((model.image_size,) if isinstance(model.image_size, int) else model.image_size or (_SMALL,))
    if smallest < _SMALL:
        yield f"model.image_size: an image of {smallest} pixels has hardly any content left"
    for name in ("skip", "match"):
        if getattr(model, name) and model.weights == "none":
            yield f"model.{name} has no effect: no weights are read"
    if recipe.data.fold is not None and "fractions" in recipe.data.model_fields_set:
        yield "data.fractions has no effect: data.fold splits the images"
    if "resize" in recipe.data.model_fields_set and getattr(recipe.data.preprocess, "pixels", None) is not None:
        yield "data.resize has no effect: data.preprocess.pixels is the whole program"


def _with_defaults(values: dict[str, Any], base: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Put the recipe's `defaults` into its stages; return it and the mistakes in the defaults themselves.

    They override built-in stages; stages in the recipe override them.
    """
    has_stages = "stages" in values
    fill(values, base)
    defaults = values.get("defaults")
    if not isinstance(defaults, dict):
        return values, []
    known = [key for key in fields_of(Stage) if key not in ("name", "train")]
    mistakes = [unknown_key(f"defaults.{key}", str(key), known) for key in defaults if key not in known]
    defaults = {key: value for key, value in defaults.items() if key in known}
    if not has_stages:
        values["stages"] = [_over(stage, defaults) for stage in values["stages"]]
    elif isinstance(values["stages"], list):
        values["stages"] = [_over(defaults, stage) if isinstance(stage, dict) else stage for stage in values["stages"]]
    return {**values, "defaults": {}}, mistakes


def _over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Override settings by others; a length in steps replaces one in epochs, and the other way round."""
    replaced = {a if b in above else b for a, b in EXCLUSIVE if (a in above) != (b in above)}
    return {**{key: value for key, value in below.items() if key not in replaced}, **above}
