"""A whole run as typed settings: read, checked all at once, written back. Parts of regraft never see it.

`regraft train [DATA] --recipe FILE --set stages.1.lr=3e-5`: DATA replaces `data.source`, `--set` replaces one key.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PrivateAttr, ValidationError, field_validator

from regraft.errors import SettingsError
from regraft.recipe_aliases import rewrite_aliases
from regraft.recipe_data import DataSettings, PreprocessSettings, off_word
from regraft.recipe_mistakes import mistakes_of, unknown_key
from regraft.recipe_schema import recipe_schema
from regraft.recipe_stages import EXCLUSIVE, Monitor, StageSettings, Strict
from regraft.recipe_text import apply_set, read_recipe
from regraft.recipe_usual import DEFAULT_MODEL, default_recipe, fill

__all__ = [
    "DEFAULT_MODEL",
    "PreprocessSettings",
    "Recipe",
    "apply_set",
    "default_recipe",
    "read_recipe",
    "schema",
    "validate_recipe",
]


class ViewSettings(Strict):
    """How many views of each augmented image are shown in turn."""

    views: int = Field(ge=1, description="views of each image, shown in turn")


class MatchSettings(Strict):
    """How the weights are matched, beside the rules; as in `rg.match_weights`."""

    map: dict[str, str] = Field(default_factory=dict, description="{name in the model: name in the file}")
    flip_stem: bool = Field(False, description="reverse the stem's input channels (BGR file, RGB network)")
    adapt_input: bool = Field(False, description="let the stem take another number of channels than the file's")
    class_order: list[int] | None = Field(None, description="for each class its row in the file's classifier")


class ChannelsSettings(Strict):
    """One change of a network's input channels."""

    in_channels: int | None = Field(None, ge=1, description="channels before this change")
    bands: list[str] | None = Field(None, description="names of the channels before this change")


class ModelSettings(Strict):
    """Which network, with which weights, at which image size."""

    name: str = Field(DEFAULT_MODEL, description="a timm name, `alexnet`, `keras_NAME`, `keras:NAME`")
    weights: str = Field("pretrained", description="a weights file, a run or its model folder, `pretrained` or `none`")
    skip: list[str] = Field(default_factory=list, description="patterns of tensors of the file to leave out")
    match: MatchSettings | None = Field(None, description="how the weights are matched, beside the rules")
    image_size: int | tuple[int, int] | None = Field(None, description="side, or [height, width], in pixels")
    in_channels: int | None = Field(None, ge=1, description="channels of the images; the pretrained stem is kept")
    bands: list[str] | None = Field(None, description="names of the channels; those of the stem keep their kernels")
    channels_before: list[ChannelsSettings] = Field(
        default_factory=list, description="changes of the channels that came before this one"
    )
    seed: int | None = Field(None, ge=0, lt=1 << 63, description="of the new layers' weights; null: the run's")
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

    pool: Literal["flatten", "avg", "max", "avgmax"] | None = Field(
        None, description="what becomes of the last feature map; null: the network's own pooling"
    )
    hidden: list[Annotated[int, Field(ge=1)]] = Field(
        default_factory=list, description="widths of hidden layers before the classifier"
    )
    dropout: float = Field(0.0, ge=0, lt=1, description="share dropped before the classifier and after hidden layers")
    activation: Literal["relu", "gelu", "silu", "tanh"] = Field("relu", description="after each hidden layer")
    output: Literal["softmax", "binary", "multilabel", "segmentation"] | None = Field(
        None,
        description="null: segmentation of images with masks, multilabel of those with several labels, else softmax",
    )


class NumericsSettings(Strict):
    """What to compute with; `auto` is resolved for the machine and written back."""

    device: str = Field("auto", description="cpu, cuda, cuda:1, mps, or auto: the fastest that is there")
    precision: Literal["auto", "fp32", "bf16", "fp16"] = Field(
        "auto", description="of activations; trained parameters are always fp32"
    )
    channels_last: bool = Field(True, description="whether images are laid out NHWC in memory")
    threads: int | None = Field(None, ge=1, description="CPU threads; null: all that there are")
    choose: Literal["table", "measure"] = Field(
        "table", description="where precision and layout come from: measured before, or for a few seconds now"
    )


class Recipe(Strict):
    """A whole run."""

    model: ModelSettings = Field(ModelSettings(), description="which network, with which weights")
    head: HeadSettings = Field(HeadSettings(), description="the form of the new head")
    data: DataSettings = Field(DataSettings(), description="which photos, and how they become pixels")
    seed: int = Field(0, ge=0, lt=1 << 63, description="of splits, order, augmentation, dropout and new layers")
    monitor: Monitor = Field("val_loss", description="the measure of an epoch that selects the best")
    mode: Literal["min", "max"] | None = Field(None, description="`min` or `max`; known from the measure's name")
    defaults: dict[str, Any] = Field(default_factory=dict, description="settings of stages that do not say otherwise")
    stages: list[StageSettings] = Field(min_length=1, description="what trains, one after the other")
    numerics: NumericsSettings = Field(NumericsSettings(), description="what to compute with")
    feature_cache: Annotated[Literal["auto", "off"] | ViewSettings, BeforeValidator(off_word)] = Field(
        "auto", description="what the frozen part computes: kept, or computed again; or K views of augmented images"
    )
    save_steps: int | None = Field(None, ge=1, description="save at every so many optimizer steps too")
    log: list[str] = Field(["tensorboard"], description="who is told: tensorboard, wandb, mlflow ...")

    _notes: tuple[str, ...] = PrivateAttr(())

    @property
    def notes(self) -> tuple[str, ...]:
        """What the reader should know: settings that were rewritten when read, and settings without effect."""
        return self._notes

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


def schema() -> dict[str, Any]:
    """The JSON schema of recipes, for editors."""
    return recipe_schema(Recipe)


def validate_recipe(values: Mapping[str, Any], usual: Mapping[str, Any] | None = None) -> Recipe:
    """Plain data as a checked recipe; Keras's spellings are rewritten, `defaults` are filled into the stages.

    Args:
        values: What the recipe says.
        usual: What a recipe without stages is filled up with; None takes `default_recipe()`.

    Raises:
        SettingsError: All mistakes at once, each with its key and, for a misspelt key, the nearest name.
    """
    rewritten = rewrite_aliases(copy.deepcopy(dict(values)))
    filled, mistakes = _with_defaults(rewritten.values, default_recipe() if usual is None else usual)
    mistakes = [*rewritten.mistakes, *mistakes]
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
    recipe._notes = (*rewritten.notes, *_without_effect(recipe))
    return recipe


def _without_effect(recipe: Recipe) -> Iterator[str]:
    """Settings that nothing reads; those of stages are told by the plan, which knows what they resolve to."""
    head, model = recipe.head, recipe.model
    if head.activation != "relu" and not head.hidden:
        yield "head.activation has no effect without head.hidden"
    if model.skip and model.weights == "none":
        yield "model.skip has no effect: no weights are read"
    if "resize" in recipe.data.model_fields_set and getattr(recipe.data.preprocess, "pixels", None) is not None:
        yield "data.resize has no effect: data.preprocess.pixels is the whole program"


def _with_defaults(values: dict[str, Any], usual: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The recipe with its `defaults` put into the stages, and what is wrong with the defaults themselves.

    Usual stages give way to the defaults; stages of the recipe's own go before them.
    """
    has_stages = "stages" in values
    fill(values, usual)
    defaults = values.get("defaults")
    if not isinstance(defaults, dict):
        return values, []
    known = [key for key in StageSettings.model_fields if key not in ("name", "train")]
    mistakes = [unknown_key(f"defaults.{key}", str(key), known) for key in defaults if key not in known]
    defaults = {key: value for key, value in defaults.items() if key in known}
    if not has_stages:
        values["stages"] = [_over(stage, defaults) for stage in values["stages"]]
    elif isinstance(values["stages"], list):
        values["stages"] = [_over(defaults, stage) if isinstance(stage, dict) else stage for stage in values["stages"]]
    return {**values, "defaults": {}}, mistakes


def _over(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Settings put over others; a length in steps takes the place of one in epochs, and the other way round."""
    replaced = {a if b in above else b for a, b in EXCLUSIVE if (a in above) != (b in above)}
    return {**{key: value for key, value in below.items() if key not in replaced}, **above}
