"""A whole run as typed settings: read, checked all at once, written back. Parts of regraft never see it.

`regraft train [DATA] --recipe FILE --set stages.1.lr=3e-5`: DATA replaces `data.source`, `--set` replaces one key.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from regraft.errors import SettingsError, nearest

__all__ = ["DEFAULT_MODEL", "Recipe", "apply_set", "default_recipe", "read_recipe", "validate_recipe"]

DEFAULT_MODEL = "tf_efficientnet_lite0"
_MAX_BYTES = 1 << 20
_INTEGER = re.compile(r"[+-]?(0|[1-9][0-9]*)$")
_NUMBER = re.compile(r"[+-]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][+-]?[0-9]+)?$|[+-]?\.(inf|nan)$")
_KIND = re.compile(r"(int|str|float|bool|(tuple|list|dict|literal)\[.*\])$")

_SYNONYMS = {
    "learning_rate": "lr",
    "rate": "lr",
    "augmentation": "augment",
    "size": "image_size",
    "resolution": "image_size",
    "pretrained": "weights",
    "architecture": "name",
    "unfreeze": "train",
    "trainable": "train",
    "path": "source",
    "folder": "source",
    "degrees": "rotation",
}

# The head on the frozen network, then the last resolution stage of the network with it, gently.
_DEFAULT_STAGES: list[dict[str, Any]] = [
    {"name": "head", "train": "head", "epochs": 10, "optimizer": "auto"},
    {
        "name": "top",
        "train": ["stage:-1", "head"],
        "epochs": 3,
        "optimizer": "adamw",
        "lr": 1e-4,
        "weight_decay": 0.01,
        "schedule": "cosine",
        "warmup_epochs": 0.5,
        "augment": {"flip": "horizontal", "rotation": 8, "zoom": 0.1, "shift": 0.05},
        "early_stopping": {"monitor": "val_loss", "patience": 2},
    },
]


class _Strict(BaseModel):
    model_config = ConfigDict(
        extra="forbid", str_strip_whitespace=True, coerce_numbers_to_str=True, allow_inf_nan=False
    )


class ModelSettings(_Strict):
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


class HeadSettings(_Strict):
    """The form of the new head."""

    pool: Literal["flatten", "avg", "max", "avgmax"] | None = None
    hidden: list[Annotated[int, Field(ge=1)]] = Field(default_factory=list)
    dropout: float = Field(0.0, ge=0, lt=1)
    activation: Literal["relu", "gelu", "silu", "tanh"] = "relu"


class DataSettings(_Strict):
    """Which photos, and how they become pixels."""

    source: str | None = None
    batch_size: int = Field(32, ge=1)
    preprocess: Literal["model"] | dict[str, Any] = "model"
    resize: Literal["squash", "crop", "pad"] = "squash"


class AugmentSettings(_Strict):
    """How training images vary: degrees, fractions of the side, factors."""

    rotation: float = Field(0.0, ge=0, le=360)
    shift: float = Field(0.0, ge=0, le=1)
    shear: float = Field(0.0, ge=0, le=89)
    zoom: float = Field(0.0, ge=0, le=0.99)
    flip: Literal["horizontal", "vertical", "both"] | None = None
    crop: tuple[float, float] | None = None
    brightness: float = Field(0.0, ge=0, le=10)
    contrast: float = Field(0.0, ge=0, le=10)
    saturation: float = Field(0.0, ge=0, le=10)
    hue: float = Field(0.0, ge=0, le=0.5)
    erase: float = Field(0.0, ge=0, le=1)
    fill: Literal["nearest", "reflect", "constant"] = "nearest"


class EarlyStoppingSettings(_Strict):
    """When a stage ends before its last epoch."""

    monitor: Literal["val_loss", "val_top1", "train_loss"] = "val_loss"
    patience: int = Field(3, ge=1)
    min_delta: float = Field(0.0, ge=0)


class PlateauSettings(_Strict):
    """When the learning rate is lowered."""

    monitor: Literal["val_loss", "val_top1", "train_loss"] = "val_loss"
    factor: float = Field(0.1, gt=0, lt=1)
    patience: int = Field(10, ge=1)
    min_delta: float = Field(1e-4, ge=0)
    cooldown: int = Field(0, ge=0)
    min_lr: float = Field(0.0, ge=0)


class StageSettings(_Strict):
    """One stage; keys not given come from `defaults`."""

    name: str = Field(min_length=1)
    train: str | list[str] = "head"
    epochs: int = Field(10, ge=1)
    optimizer: Literal["auto", "lbfgs", "adamw", "adam", "sgd"] = "auto"
    lr: float | None = Field(None, gt=0)
    backbone_lr: float = Field(1.0, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    schedule: Literal["constant", "cosine"] = "constant"
    warmup_epochs: float = Field(0.0, ge=0)
    batch_size: int | None = Field(None, ge=1)
    augment: AugmentSettings | None = None
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    clip_norm: float | None = Field(None, gt=0)
    early_stopping: EarlyStoppingSettings | None = None
    plateau: PlateauSettings | None = None
    bn: Literal["train", "affine-only", "frozen"] | None = None
    start: Literal["best", "last"] = "best"


class NumericsSettings(_Strict):
    """What to compute with; `auto` is resolved for the machine and written back."""

    device: str = "auto"
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    channels_last: bool = True
    threads: int | None = Field(None, ge=1)


class Recipe(_Strict):
    """A whole run."""

    model: ModelSettings = ModelSettings()
    head: HeadSettings = HeadSettings()
    data: DataSettings = DataSettings()
    seed: int = Field(0, ge=0, lt=1 << 63)
    monitor: Literal["val_loss", "val_top1", "train_loss"] = "val_loss"
    mode: Literal["min", "max"] | None = None
    defaults: dict[str, Any] = Field(default_factory=dict)
    stages: list[StageSettings] = Field(min_length=1)
    numerics: NumericsSettings = NumericsSettings()
    save_steps: int | None = Field(None, ge=1)

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
    return {"model": {"name": DEFAULT_MODEL}, "stages": copy.deepcopy(_DEFAULT_STAGES)}


def read_recipe(path: str | Path) -> dict[str, Any]:
    """A YAML recipe as plain data, not yet validated.

    Raises:
        SettingsError: No such file, not YAML, not a mapping, unreasonably large.
    """
    path = Path(path)
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError(f"it has {path.stat().st_size:,} bytes, the limit is {_MAX_BYTES:,}")
        text = path.read_text(encoding="utf-8-sig")
        if "&" in text and "*" in text and _has_aliases(text):
            raise ValueError("it uses YAML aliases (&name, *name), which recipes do without")
        values = yaml.load(text, Loader=_Loader)  # a SafeLoader
        if not isinstance(values, dict):
            raise ValueError("it holds no settings at its top level")
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise SettingsError(
            f"The recipe {str(path)!r} cannot be read: {' '.join(str(error).split())}.",
            "Expected a YAML file with keys such as model, data and stages.",
            "Type `regraft recipe` to print one to start from.",
        ) from error
    return values


def apply_set(values: dict[str, Any], assignment: str) -> None:
    """Carry out `--set key.path=value` on plain data, in place; the value is read as YAML.

    Raises:
        SettingsError: No `=`, or a path that leads nowhere.
    """
    key, found, text = assignment.partition("=")
    try:
        value = yaml.load(text, Loader=_Loader) if found else None  # a SafeLoader
    except (ValueError, RecursionError, yaml.YAMLError):
        value = text
    parts = key.strip().split(".")
    if parts[0] == "stages" and len(parts) > 1 and "stages" not in values:
        values["stages"] = copy.deepcopy(_DEFAULT_STAGES)
    if not found or not all(parts):
        raise SettingsError(
            f"--set {assignment!r} is not an assignment.",
            "Expected key=value with a dotted key.",
            "Type for example `--set stages.1.lr=3e-5`.",
        )
    place: Any = values
    for part in parts[:-1]:
        place = _step(place, part, assignment)
    if isinstance(place, list):
        place[_position(place, parts[-1], assignment)] = value
    else:
        place[parts[-1]] = value


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
        mistakes += _mistakes(error)
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
        values.setdefault("stages", copy.deepcopy(_DEFAULT_STAGES))
        return values, []
    known = [key for key in StageSettings.model_fields if key not in ("name", "train")]
    mistakes = [_unknown(f"defaults.{key}", str(key), known) for key in defaults if key not in known]
    defaults = {key: value for key, value in defaults.items() if key in known}
    if "stages" not in values:
        values["stages"] = [{**stage, **defaults} for stage in copy.deepcopy(_DEFAULT_STAGES)]
    elif isinstance(values["stages"], list):
        values["stages"] = [{**defaults, **stage} if isinstance(stage, dict) else stage for stage in values["stages"]]
    return {**values, "defaults": {}}, mistakes


def _unknown(path: str, key: str, known: Sequence[str]) -> str:
    near = next((repr(word) for word in (_SYNONYMS.get(key.lower()),) if word in known), "") or nearest(key, known)
    return f"{path}: no such setting" + (f"; did you mean {near}?" if near else f"; known: {', '.join(known)}")


def _mistakes(error: ValidationError) -> list[str]:
    """One line for each key; where a key may be of several kinds, pydantic has an entry for each kind."""
    lines: dict[str, list[str]] = {}
    given: dict[str, Any] = {}
    for item in error.errors():
        loc = item["loc"]
        if item["type"] == "extra_forbidden":
            path = ".".join(map(str, loc))
            lines.setdefault(_unknown(path, str(loc[-1]), _known_keys(loc[:-1])), [])
            continue
        path = ".".join(str(part) for part in loc if not _KIND.match(str(part)))
        lines.setdefault(path, []).append(_reason(item))
        given[path] = item["input"]
    return [_line(path, reasons, given.get(path, ...)) for path, reasons in lines.items()]


def _line(path: str, reasons: Sequence[str], given: Any) -> str:
    if not reasons:
        return path
    shown = given is None or isinstance(given, (str, int, float, bool))
    return f"{path}: {', or '.join(dict.fromkeys(reasons))}" + (f"; it is {given!r}" if shown else "")


def _reason(item: Any) -> str:
    named = {
        "missing": "is missing",
        "model_type": "must be a group of keys",
        "dict_type": "must be a group of keys",
        "list_type": "must be a list",
        "tuple_type": "must be a list",
        "int_parsing": "must be a whole number",
        "int_type": "must be a whole number",
        "int_from_float": "must be a whole number",
        "float_parsing": "must be a number",
        "float_type": "must be a number",
        "string_type": "must be a word",
    }
    text: str = item["msg"].removeprefix("Value error, ")
    for long, short in (("Input should be", "must be"), ("List should", "must"), ("Tuple should", "must")):
        text = text.replace(long, short)
    return named.get(item["type"], text.replace(" after validation", ""))


def _known_keys(path: Sequence[Any]) -> list[str]:
    kind: Any = Recipe
    for part in path:
        if isinstance(part, int) or not hasattr(kind, "model_fields") or part not in kind.model_fields:
            continue
        kinds = _models_in(kind.model_fields[part].annotation)
        kind = kinds[0] if kinds else None
    return sorted(kind.model_fields) if hasattr(kind, "model_fields") else []


def _models_in(annotation: Any) -> list[Any]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in getattr(annotation, "__args__", ()) for model in _models_in(part)]


def _step(place: Any, part: str, assignment: str) -> Any:
    if isinstance(place, list):
        return place[_position(place, part, assignment)]
    if not isinstance(place, dict):
        raise SettingsError(
            f"--set {assignment!r} leads into {place!r}, which has no keys.",
            "Expected a dotted key into the recipe.",
            "Type for example `--set stages.1.lr=3e-5`.",
        )
    if not isinstance(place.get(part), (dict, list)):
        place[part] = {}
    return place[part]


def _position(place: list[Any], part: str, assignment: str) -> int:
    names = [item.get("name") for item in place if isinstance(item, dict)]
    if part in names:
        return names.index(part)
    if part.isdigit() and int(part) < len(place):
        return int(part)
    raise SettingsError(
        f"--set {assignment!r} names the item {part!r}, of which there is none.",
        f"Expected a number from 0 to {len(place) - 1}"
        + (f", or one of: {', '.join(map(str, names))}." if names else "."),
        "Type for example `--set stages.0.lr=3e-5`.",
    )


def _has_aliases(text: str) -> bool:
    return any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=yaml.SafeLoader))


class _Loader(yaml.SafeLoader):
    """A safe loader as people read YAML: 1e-3 is a number, 2024-01-31 and 1:30 are names, no key stands twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise ValueError(f"the key {key!r} is no word (line {key_node.start_mark.line + 1})")
            if key in seen:
                raise ValueError(f"the key {key!r} stands twice (line {key_node.start_mark.line + 1})")
            seen.add(key)
        return super().construct_mapping(node, deep)


def _resolvers() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    """YAML 1.1's rules for plain words, without dates and numbers to the base 60, and with 3e-5."""
    numbers = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float", "tag:yaml.org,2002:timestamp")
    rules = {
        first: [rule for rule in found if rule[0] not in numbers]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    for first in "-+0123456789.":
        rules.setdefault(first, []).extend(zip(numbers, (_INTEGER, _NUMBER), strict=False))
    return rules


_Loader.yaml_implicit_resolvers = _resolvers()
