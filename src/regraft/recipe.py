"""A whole run as typed settings: read, checked all at once, written back. Parts of regraft never see it.

`regraft train [DATA] --recipe FILE --set stages.1.lr=3e-5`: DATA replaces `data.source`, `--set` replaces one key.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator

from regraft.errors import SettingsError
from regraft.recipe_data import DataSettings, PreprocessSettings
from regraft.recipe_mistakes import mistakes_of, unknown_key
from regraft.recipe_stages import DEFAULT_STAGES, EXCLUSIVE, Monitor, StageSettings, Strict
from regraft.recipe_text import apply_set, read_recipe

__all__ = [
    "DEFAULT_MODEL",
    "PreprocessSettings",
    "Recipe",
    "apply_set",
    "default_recipe",
    "read_recipe",
    "validate_recipe",
]

DEFAULT_MODEL = "tf_efficientnet_lite0"


class ModelSettings(Strict):
    """Which network, with which weights, at which image size."""

    name: str = DEFAULT_MODEL
    weights: str = Field("pretrained", description="a weights file, `pretrained` or `none`")
    skip: list[str] = Field(default_factory=list, description="patterns of tensors of the file to leave out")
    image_size: int | tuple[int, int] | None = Field(None, description="side, or [height, width], in pixels")
    in_channels: int | None = Field(None, ge=1, description="channels of the images; the pretrained stem is kept")
    args: dict[str, Any] = Field(default_factory=dict, description="further arguments of the architecture")

    @field_validator("image_size")
    @classmethod
    def _positive(cls, value: int | tuple[int, int] | None) -> int | tuple[int, int] | None:
        sides = () if value is None else (value,) if isinstance(value, int) else value
        if any(side < 1 for side in sides):
            raise ValueError("must be at least 1 pixel")
        return value


class HeadSettings(Strict):
    """The form of the new head."""

    pool: Literal["flatten", "avg", "max", "avgmax"] | None = None
    hidden: list[Annotated[int, Field(ge=1)]] = Field(default_factory=list)
    dropout: float = Field(0.0, ge=0, lt=1)
    activation: Literal["relu", "gelu", "silu", "tanh"] = "relu"
    output: Literal["softmax", "binary", "multilabel"] | None = Field(
        None, description="null: multilabel where an image of the data may have several labels, else softmax"
    )


class NumericsSettings(Strict):
    """What to compute with; `auto` is resolved for the machine and written back."""

    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    channels_last: bool = True
    threads: int | None = Field(None, ge=1)


class Recipe(Strict):
    """A whole run."""

    model: ModelSettings = ModelSettings()
    head: HeadSettings = HeadSettings()
    data: DataSettings = DataSettings()
    seed: int = Field(0, ge=0, lt=1 << 63)
    monitor: Monitor = "val_loss"
    mode: Literal["min", "max"] | None = None
    defaults: dict[str, Any] = Field(default_factory=dict)
    stages: list[StageSettings] = Field(min_length=1)
    numerics: NumericsSettings = NumericsSettings()
    save_steps: int | None = Field(None, ge=1)
    log: list[str] = Field(["tensorboard"], description="who is told: tensorboard, wandb, mlflow ...")

    def with_stages(self, names: Sequence[str]) -> Recipe:
        """The recipe with only the stages of these names, in the recipe's order.

        Raises:
            SettingsError: A name that no stage has.
        """
        known = [stage.name for stage in self.stages]
        unknown = [name for name in names if name not in known]
        if unknown:
            raise SettingsError(
                f"The recipe has no stage {', '.join(map(repr, unknown))}.",
                f"Its stages are: {', '.join(known)}.",
                f"Type `--stages {','.join(known)}`, or one of them.",
            )
        return self.model_copy(update={"stages": [stage for stage in self.stages if stage.name in names]})


def default_recipe() -> dict[str, Any]:
    """The recipe of a run without options, as plain data."""
    return {"model": {"name": DEFAULT_MODEL}, "stages": copy.deepcopy(DEFAULT_STAGES)}


def validate_recipe(values: Mapping[str, Any]) -> Recipe:
    """Plain data as a checked recipe; `defaults` are filled into the stages.

    Raises:
        SettingsError: All mistakes at once, each with its key and, for a misspelt key, the nearest name.
    """
    filled, mistakes = _with_defaults(copy.deepcopy(dict(values)))
    recipe = None
    try:
        recipe = Recipe.model_validate(filled)
    except ValidationError as error:
        mistakes += mistakes_of(error, Recipe)
    if recipe is None or mistakes:
        raise SettingsError(
            f"The settings have {len(mistakes)} mistake{'s' if len(mistakes) > 1 else ''}.",
            "Expected the keys and values of a recipe.",
            "Correct what is listed below; `regraft recipe` prints a whole recipe to compare with.",
            details=mistakes,
        )
    return recipe


def _with_defaults(values: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The recipe with its `defaults` put into the stages, and what is wrong with the defaults themselves.

    Built-in stages give way to the defaults; stages of the recipe's own go before them.
    """
    defaults = values.get("defaults")
    if not isinstance(defaults, dict):
        values.setdefault("stages", copy.deepcopy(DEFAULT_STAGES))
        return values, []
    known = [key for key in StageSettings.model_fields if key not in ("name", "train")]
    mistakes = [unknown_key(f"defaults.{key}", str(key), known) for key in defaults if key not in known]
    defaults = {key: value for key, value in defaults.items() if key in known}
    if "stages" not in values:
        values["stages"] = [_over(stage, defaults) for stage in copy.deepcopy(DEFAULT_STAGES)]
    elif isinstance(values["stages"], list):
        values["stages"] = [_over(defaults, stage) if isinstance(stage, dict) else stage for stage in values["stages"]]
    return {**values, "defaults": {}}, mistakes


def _over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Settings put over others; a length in steps takes the place of one in epochs, and the other way round."""
    replaced = {a if b in above else b for a, b in EXCLUSIVE if (a in above) != (b in above)}
    return {**{key: value for key, value in below.items() if key not in replaced}, **above}
