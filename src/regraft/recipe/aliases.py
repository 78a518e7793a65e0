"""Keras's spellings of settings, rewritten into regraft's when a recipe is read, with a note for each.

Both spellings together are a mistake, and so is a value that regraft has no setting for.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["ALIASES", "Rewriting", "rewrite_aliases"]


@dataclass
class Rewriting:
    """A recipe in regraft's own spelling.

    Attributes:
        values: The recipe.
        notes: One sentence per rewritten setting.
        mistakes: One line per setting that could not be rewritten.
    """

    values: dict[str, Any]
    notes: list[str] = field(default_factory=list)
    mistakes: list[str] = field(default_factory=list)


class _CannotError(ValueError):
    """A value that regraft has no setting for."""


@dataclass(frozen=True)
class _Alias:
    """How one foreign key becomes one of regraft's.

    Attributes:
        name: Regraft's key, in the same group.
        convert: Its value; None means the default, so the key is left out.
        merge: The value when an earlier alias in the group has set the key already.
    """

    name: str
    convert: Callable[[Any], Any] = lambda value: value
    merge: Callable[[Any, Any], Any] | None = None


def _nothing(*allowed: Any) -> Callable[[Any], None]:
    """Accept only values that ask for what happens anyway."""

    def convert(value: Any) -> None:
        if value not in allowed:
            raise _CannotError(f"regraft has no setting for the value {value!r}; leave it out")

    return convert


def _around_one(value: Any) -> float:
    """Turn [0.8, 1.2] into 0.2."""
    numbers = value if isinstance(value, list) and len(value) == 2 else None
    if numbers is None or not all(isinstance(number, (int, float)) for number in numbers):
        raise _CannotError("expected two numbers, as [0.8, 1.2]")
    if abs(numbers[0] + numbers[1] - 2) > 1e-9 or numbers[1] < numbers[0]:
        raise _CannotError(f"{value!r} is not symmetric around 1, as [0.8, 1.2] is; regraft has no other ranges")
    return round(float(numbers[1] - numbers[0]) / 2, 12)


def _zoom(value: Any) -> Any:
    return _around_one(value) if isinstance(value, list) else value


def _shift(axis: int) -> Callable[[Any], Any]:
    def convert(value: Any) -> Any:
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value >= 1:
            raise _CannotError(f"{value!r} is not a fraction of the side from 0 to below 1; pixels are not supported")
        return [value, 0.0] if axis == 0 else [0.0, value]

    return convert


def _both_shifts(first: Any, second: Any) -> Any:
    vertical, horizontal = (max(pair) for pair in zip(first, second, strict=True))
    return vertical if vertical == horizontal else [vertical, horizontal]


def _flip(direction: str) -> Callable[[Any], Any]:
    def convert(value: Any) -> Any:
        if not isinstance(value, bool):
            raise _CannotError(f"{value!r} is neither true nor false")
        return direction if value else None

    return convert


def _mode(value: Any) -> Any:
    return None if value == "auto" else value


_METRICS = {
    "loss": "train_loss",
    "val_accuracy": "val_top1",
    "val_acc": "val_top1",
    "val_categorical_accuracy": "val_top1",
    "val_sparse_categorical_accuracy": "val_top1",
    "val_binary_accuracy": "val_top1",
}
_RULE = {"verbose": _Alias("", _nothing(0, 1, 2, True, False))}

# The groups of a stage and the foreign keys in each. The name "" means: nothing to write.
ALIASES: dict[str, dict[str, _Alias]] = {
    "augment": {
        "rotation_range": _Alias("rotation"),
        "width_shift_range": _Alias("shift", _shift(1), _both_shifts),
        "height_shift_range": _Alias("shift", _shift(0), _both_shifts),
        "shear_range": _Alias("shear"),
        "zoom_range": _Alias("zoom", _zoom),
        "brightness_range": _Alias("brightness", _around_one),
        "horizontal_flip": _Alias("flip", _flip("horizontal"), lambda *_: "both"),
        "vertical_flip": _Alias("flip", _flip("vertical"), lambda *_: "both"),
        "fill_mode": _Alias("fill"),
        "cval": _Alias("", _nothing(0)),
        "rescale": _Alias("", lambda value: None),
    },
    "early_stopping": {"restore_best_weights": _Alias("restore_best"), **_RULE},
    "plateau": {"epsilon": _Alias("min_delta"), **_RULE},
    "": {
        "learning_rate": _Alias("lr"),
        "trainable": _Alias("train"),
        "augmentation": _Alias("augment"),
        "class_weight": _Alias("class_weights"),
        "ema_momentum": _Alias("ema"),
        "global_clipnorm": _Alias("clip_norm"),
        "EarlyStopping": _Alias("early_stopping"),
        "ReduceLROnPlateau": _Alias("plateau"),
        "reduce_lr_on_plateau": _Alias("plateau"),
    },
}


def rewrite_aliases(values: Mapping[str, Any]) -> Rewriting:
    """Rewrite the keys of `ALIASES` in the stages and defaults of a recipe, given as plain data; return a new one."""
    result = Rewriting(dict(values))
    stages = values.get("stages")
    if isinstance(stages, list):
        result.values["stages"] = [_stage(result, f"stages.{n}", stage) for n, stage in enumerate(stages)]
    if "defaults" in values:
        result.values["defaults"] = _stage(result, "defaults", values["defaults"])
    if isinstance(values.get("monitor"), str):
        result.values["monitor"] = _metric(result, "monitor", values["monitor"])
    return result


def _stage(result: Rewriting, path: str, stage: Any) -> Any:
    stage = _group(result, path, stage, ALIASES[""])
    if not isinstance(stage, dict):
        return stage
    for name in ("augment", "early_stopping", "plateau"):
        if name in stage:
            stage[name] = _group(result, f"{path}.{name}", stage[name], ALIASES[name])
    for name in ("early_stopping", "plateau"):
        rule = stage.get(name)
        if isinstance(rule, dict) and isinstance(rule.get("monitor"), str):
            rule["monitor"] = _metric(result, f"{path}.{name}.monitor", rule["monitor"])
        if isinstance(rule, dict) and "mode" in rule:
            rule["mode"] = _mode(rule["mode"])
    return stage


def _group(result: Rewriting, path: str, group: Any, aliases: Mapping[str, _Alias]) -> Any:
    if not isinstance(group, dict):
        return group
    rewritten = {key: value for key, value in group.items() if key not in aliases}
    given: dict[str, str] = {}
    for key, value in group.items():
        if key not in aliases:
            continue
        alias = aliases[key]
        try:
            _put(rewritten, given, key, alias, value)
        except _CannotError as error:
            result.mistakes.append(f"{path}.{key}: {error}")
            continue
        shown = f"{alias.name}: {rewritten[alias.name]!r}" if alias.name in rewritten else "left out"
        result.notes.append(f"{path}.{key}: {value!r} is Keras's spelling of {shown}" + _remark(key, value))
    return rewritten


def _put(group: dict[str, Any], given: dict[str, str], key: str, alias: _Alias, value: Any) -> None:
    converted = alias.convert(value)
    if not alias.name:
        return
    if alias.name in group and (alias.name not in given or alias.merge is None):
        other = given.get(alias.name, alias.name)
        raise _CannotError(f"{key} and {other} are both given, but they are the same setting; keep one")
    if converted is None:
        return
    group[alias.name] = alias.merge(group[alias.name], converted) if alias.name in group and alias.merge else converted
    given[alias.name] = key


def _remark(key: str, value: Any) -> str:
    if key == "shear_range" and isinstance(value, (int, float)) and 0 < value < 1.6:
        degrees = f"{math.degrees(value):.3g} degrees"
        return f"; it is in degrees, as in Keras today. Recipes of 2016 meant radians: {value} rad is {degrees}"
    if key == "rescale":
        return "; preprocessing already scales the pixels"
    return ""


def _metric(result: Rewriting, path: str, name: str) -> str:
    if name not in _METRICS:
        return name
    result.notes.append(f"{path}: {name!r} is Keras's spelling of {_METRICS[name]!r}")
    return _METRICS[name]
