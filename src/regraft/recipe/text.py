"""A recipe as text: YAML as people write it, and `--set key.path=value`. Nothing here knows which keys there are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from regraft.errors import SettingsError, did_you_mean
from regraft.recipe.defaults import default_recipe, fill

__all__ = ["apply_set", "read_recipe"]

_MAX_BYTES = 1 << 20
_INTEGER = re.compile(r"[+-]?(0|[1-9][0-9]*)$")
_NUMBER = re.compile(r"[+-]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][+-]?[0-9]+)?$|[+-]?\.(inf|nan)$")


def read_recipe(path: str | Path) -> dict[str, Any]:
    """Read a YAML recipe as plain data, not yet validated.

    Raises:
        SettingsError: No such file, not YAML, not a mapping, unreasonably large.
    """
    path = Path(path)
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError(f"it has {path.stat().st_size:,} bytes, the limit is {_MAX_BYTES:,}")
        text = path.read_text(encoding="utf-8-sig")
        if "&" in text and "*" in text and _has_aliases(text):
            raise ValueError("it uses YAML aliases (&name, *name), which recipes cannot have")
        values = yaml.load(text, Loader=_Loader)  # a SafeLoader
        if not isinstance(values, dict):
            raise ValueError("its top level is not a mapping")
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else " ".join(str(error).split())
        reason = "it is not text" if isinstance(error, UnicodeDecodeError) else reason
        raise SettingsError(
            f"The recipe {str(path)!r} cannot be read: {reason}.",
            "a YAML file with keys such as model, data and stages",
            "run `regraft recipe` to print one to start from",
        ) from error
    return values


def apply_set(values: dict[str, Any], assignment: str, base: Mapping[str, Any] | None = None) -> None:
    """Apply `--set key.path=value` to plain data, in target; the value is read as YAML.

    The number after the last one of a list adds an item, as in `stages.2={name: all, train: all}`.

    Args:
        values: The recipe.
        assignment: What to set.
        base: Where the stages come from if the recipe has none and one is changed; None: `default_recipe()`.

    Raises:
        SettingsError: No `=`, or a key that does not exist.
    """
    key, sign, text = assignment.partition("=")
    try:
        value = yaml.load(text, Loader=_Loader) if sign else None  # a SafeLoader
    except (ValueError, RecursionError, yaml.YAMLError):
        value = text
    parts = key.strip().split(".")
    if parts[0] == "stages" and len(parts) > 1:
        fill(values, default_recipe() if base is None else base)
    if not sign or not all(parts):
        raise SettingsError(
            f"--set {assignment!r} is not an assignment.",
            "key=value with a dotted key",
            "for example: `--set stages.1.lr=3e-5`",
        )
    target: Any = values
    for part in parts[:-1]:
        target = _step(target, part, assignment)
    if isinstance(target, list) and parts[-1] == str(len(target)):
        target.append(value)
    elif isinstance(target, list):
        target[_position(target, parts[-1], assignment)] = value
    else:
        target[parts[-1]] = value


def _step(target: Any, part: str, assignment: str) -> Any:
    if isinstance(target, list):
        return target[_position(target, part, assignment)]
    if not isinstance(target, dict):
        raise SettingsError(
            f"--set {assignment!r} sets a key in {target!r}, which is not a mapping.",
            "",
            "for example: `--set stages.1.lr=3e-5`",
        )
    if not isinstance(target.get(part), (dict, list)):
        target[part] = {}
    return target[part]


def _position(target: list[Any], part: str, assignment: str) -> int:
    names = [item.get("name") for item in target if isinstance(item, dict)]
    if part in names:
        return names.index(part)
    if part.isdigit() and int(part) < len(target):
        return int(part)
    raise SettingsError(
        f"--set {assignment!r} names {part!r}, which does not exist{did_you_mean(part, list(map(str, names)))}",
        f"a number from 0 to {len(target) - 1}" + (f", or one of: {', '.join(map(str, names))}." if names else "."),
        "for example: `--set stages.0.lr=3e-5`",
    )


def _has_aliases(text: str) -> bool:
    return any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=yaml.SafeLoader))


class _Loader(yaml.SafeLoader):
    """A safe loader for YAML as people read it: 1e-3 is a number, 2024-01-31 is a string, no duplicate keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[Any] = set()
        for key_node, _ in node.value:
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise ValueError(f"the key {key!r} is not a string (line {key_node.start_mark.line + 1})")
            if key in seen:
                raise ValueError(f"duplicate key {key!r} (line {key_node.start_mark.line + 1})")
            seen.add(key)
        return super().construct_mapping(node, deep)


def _resolvers() -> dict[str, list[tuple[str, re.Pattern[str]]]]:
    """Return YAML 1.1's rules for plain scalars, without dates and base-60 numbers, and with 3e-5."""
    numbers = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float", "tag:yaml.org,2002:timestamp")
    rules = {
        first: [rule for rule in found if rule[0] not in numbers]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    for first in "-+0123456789.":
        rules.setdefault(first, []).extend(zip(numbers, (_INTEGER, _NUMBER), strict=False))
    return rules


_Loader.yaml_implicit_resolvers = _resolvers()
