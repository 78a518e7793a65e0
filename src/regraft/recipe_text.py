"""A recipe as text: YAML as people write it, and `--set key.path=value`. Nothing here knows which keys there are."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from regraft.errors import SettingsError
from regraft.recipe_usual import default_recipe, fill

__all__ = ["apply_set", "read_recipe"]

_MAX_BYTES = 1 << 20
_INTEGER = re.compile(r"[+-]?(0|[1-9][0-9]*)$")
_NUMBER = re.compile(r"[+-]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))([eE][+-]?[0-9]+)?$|[+-]?\.(inf|nan)$")


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


def apply_set(values: dict[str, Any], assignment: str, usual: Mapping[str, Any] | None = None) -> None:
    """Carry out `--set key.path=value` on plain data, in place; the value is read as YAML.

    The number after the last one of a list adds an item, as in `stages.2={name: all, train: all}`.

    Args:
        values: The recipe.
        assignment: What to set.
        usual: Where the stages come from if the recipe has none and one is changed; None takes `default_recipe()`.

    Raises:
        SettingsError: No `=`, or a path that leads nowhere.
    """
    key, found, text = assignment.partition("=")
    try:
        value = yaml.load(text, Loader=_Loader) if found else None  # a SafeLoader
    except (ValueError, RecursionError, yaml.YAMLError):
        value = text
    parts = key.strip().split(".")
    if parts[0] == "stages" and len(parts) > 1:
        fill(values, default_recipe() if usual is None else usual)
    if not found or not all(parts):
        raise SettingsError(
            f"--set {assignment!r} is not an assignment.",
            "Expected key=value with a dotted key.",
            "Type for example `--set stages.1.lr=3e-5`.",
        )
    place: Any = values
    for part in parts[:-1]:
        place = _step(place, part, assignment)
    if isinstance(place, list) and parts[-1] == str(len(place)):
        place.append(value)
    elif isinstance(place, list):
        place[_position(place, parts[-1], assignment)] = value
    else:
        place[parts[-1]] = value


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
