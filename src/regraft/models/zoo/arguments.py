"""The arguments that a network may be built with, by name and kind: all that a stored model or recipe can ask for.

A model folder or a run folder may come from a stranger, and its arguments go to builders that take far more than the
shape of a network: timm's opens files (`checkpoint_path`) and addresses (`pretrained_cfg`). So there is one list for
every builder, and nothing in it names a file or an address. What plain data cannot hold (a class, a function) can only
come from the caller's own program, and is let through.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from regraft.errors import SettingsError, nearest
from regraft.weights.limits import shown

__all__ = ["TIMM_ARGUMENTS", "argument_mistakes", "check_arguments"]

TIMM_ARGUMENTS = "timm_arguments.txt"  # `scripts/list_arguments.py` writes it from timm
_LARGEST = 1 << 20
_LONGEST, _DEEPEST = 256, 4
_WORD = re.compile(r"[A-Za-z0-9_.+-]{0,100}")  # no separator of paths, no colon of addresses

Kinds = frozenset[str]


def _are(kinds: str, names: str) -> dict[str, Kinds]:
    return {name: frozenset(kinds.split()) for name in names.split()}


_EVERY = {
    **_are("number", "num_classes in_chans"),
    **_are("seed", "seed"),
    **_are("flag", "include_top"),
    **_are("word", "pooling"),
    **_are("adjustments", "adjusted"),
}
_ALEXNET = {
    **_are("number word", "conv1_padding"),
    **_are("word", "norm_order"),
    **_are("number", "lrn_alpha lrn_k dropout groups hidden"),
    **_are("list", "widths"),
}
_SEGMENTATION = {
    **_are("word", "encoder init up"),
    **_are("number", "depth convs dropout"),
    **_are("list", "filters pyramid"),
    **_are("flag", "batch_norm"),
    **_are("arguments", "encoder_args"),
}
_KERAS = {**_are("number", "alpha depth_multiplier dropout"), **_are("flag", "minimalistic include_preprocessing")}
_FORM = {**_are("number word", "keras_version"), **_are("flag", "rescaling")}


def check_arguments(name: str, arguments: Mapping[str, Any]) -> None:
    """Raise unless each argument is one that the network of this name may be built with, and of a kind it takes.

    Raises:
        SettingsError: All that are not, with the nearest name.
    """
    mistakes = argument_mistakes(name, arguments)
    if mistakes:
        raise SettingsError(
            f"{name!r} does not take these arguments.",
            "names and plain values that describe a network; files and addresses are not among them",
            "leave them out; weights are named by `weights` (`model.weights` in a recipe)",
            details=mistakes,
        )


def argument_mistakes(name: str, arguments: Mapping[str, Any]) -> list[str]:
    """Return the mistakes in the arguments of a network, one line each; empty where there are none."""
    return list(_mistakes(_allowed(name), arguments))


def _allowed(name: str) -> dict[str, Kinds]:
    if name in ("alexnet", "torchvision_alexnet"):
        return _EVERY | _ALEXNET
    if name in ("unet", "segnet"):
        return _EVERY | _SEGMENTATION
    if name.startswith("keras:"):
        return _EVERY | _KERAS
    return _EVERY | _of_timm() | (_FORM if name.startswith("keras_") else {})


@cache
def _of_timm() -> dict[str, Kinds]:
    text = files("regraft.models.zoo").joinpath(TIMM_ARGUMENTS).read_text(encoding="ascii")
    return {name: frozenset(kinds.split(",")) for name, kinds in map(str.split, text.splitlines())}


def _mistakes(allowed: Mapping[str, Kinds], arguments: Mapping[str, Any]) -> Iterator[str]:
    for key, value in arguments.items():
        if callable(value):
            continue
        if not isinstance(key, str) or key not in allowed:
            near = nearest(key, list(allowed), limit=1) if _is_word(key) else ""
            yield f"{shown(key)} is not an argument of a network" + (f"; did you mean {near}?" if near else "")
        elif "arguments" in allowed[key] and isinstance(value, Mapping):
            yield from (f"{key}: {mistake}" for mistake in _mistakes(_allowed("keras_"), value))
        elif value is not None and not any(_IS[kind](value) for kind in allowed[key]):
            yield f"{key} is {shown(value)}; expected {' or '.join(_EXPECTED[kind] for kind in sorted(allowed[key]))}"


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_number(value: Any) -> bool:
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    return (is_whole or (isinstance(value, float) and math.isfinite(value))) and abs(value) <= _LARGEST


def _is_seed(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63


def _is_word(value: Any) -> bool:
    return isinstance(value, str) and _WORD.fullmatch(value) is not None


def _is_list(value: Any, depth: int = 1) -> bool:
    return (
        isinstance(value, (list, tuple))
        and len(value) <= _LONGEST
        and all(_is_scalar(item) or (depth < _DEEPEST and _is_list(item, depth + 1)) for item in value)
    )


def _is_table(value: Any) -> bool:
    is_short = isinstance(value, Mapping) and len(value) <= _LONGEST
    return is_short and all(_is_word(key) and (_is_scalar(item) or _is_list(item)) for key, item in value.items())


def _is_scalar(value: Any) -> bool:
    return value is None or callable(value) or _is_flag(value) or _is_number(value) or _is_word(value)


def _is_arguments(value: Any) -> bool:
    return isinstance(value, Mapping)  # what is in it is looked at by itself


def _is_adjustments(value: Any) -> bool:
    """Return strides and epsilons by layer, as `graft(..., adjust=True)` notes them."""
    return isinstance(value, Mapping) and all(
        _is_word(layer) and isinstance(changes, Mapping) and all(map(_is_adjustment, changes.items()))
        for layer, changes in value.items()
    )


def _is_adjustment(change: tuple[Any, Any]) -> bool:
    attribute, value = change
    if attribute == "eps":
        return _is_number(value)
    return attribute == "stride" and (_is_number(value) or (_is_list(value) and all(map(_is_number, value))))


_IS: dict[str, Callable[[Any], bool]] = {
    "flag": _is_flag,
    "number": _is_number,
    "seed": _is_seed,
    "word": _is_word,
    "list": _is_list,
    "table": _is_table,
    "arguments": _is_arguments,
    "adjustments": _is_adjustments,
}
_EXPECTED = {
    "flag": "true or false",
    "number": f"a number up to {_LARGEST:,}",
    "seed": "a whole number from 0 on",
    "word": "a word of letters, digits and _ . + -",
    "list": "a list of such values",
    "table": "a mapping of such values",
    "arguments": "arguments of the encoder's network",
    "adjustments": "strides and epsilons by layer",
}
