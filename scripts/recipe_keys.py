"""Print the tables of docs/recipes.md from the schema of recipes; a test holds the page against the same schema.

python scripts/recipe_keys.py
"""

from __future__ import annotations

import json
from typing import Any

from regraft.recipe.recipe import schema

_GROUPS = {
    "recipe": (None, "the top level"),
    "model": ("ModelSettings", "the network"),
    "head": ("Head", "its new head"),
    "data": ("DataSettings", "the images"),
    "stages": ("Stage", "a list; each stage, and `defaults`"),
    "stages.schedule": ("Schedule", "instead of a name"),
    "stages.augment": ("Augment", "training images only"),
    "stages.early_stopping": ("EarlyStopping", "as Keras's EarlyStopping"),
    "stages.plateau": ("Plateau", "as Keras's ReduceLROnPlateau"),
    "numerics": ("NumericsSettings", "what to compute with"),
}
_MANY = 12  # values of a setting that a table does not list


def main() -> None:
    whole = schema()
    for name, (definition, remark) in _GROUPS.items():
        group = whole if definition is None else whole["$defs"][definition]
        print(f"### `{name}`: {remark}\n\n| key | value | what it does |\n|---|---|---|")
        for key, entry in group["properties"].items():
            if not entry.get("deprecated"):
                print(f"| `{key}` | {_value(entry)} | {_escaped(entry.get('description', ''))} |")
        print()


def _value(entry: dict[str, Any]) -> str:
    kinds = entry.get("anyOf") or entry.get("oneOf") or [entry]
    shown = " or ".join(dict.fromkeys(_kind(kind) for kind in kinds if kind.get("type") != "null"))
    default = entry.get("default")
    plain = isinstance(default, (bool, int, float, str)) or (isinstance(default, list) and default)
    return _escaped(shown + (f"; `{json.dumps(default).strip(chr(34))}`" if plain else ""))


def _kind(kind: dict[str, Any]) -> str:
    if "enum" in kind:
        return "a name" if len(kind["enum"]) > _MANY else ", ".join(map(str, kind["enum"]))
    if "const" in kind:
        return str(kind["const"])
    if "$ref" in kind or kind.get("type") == "object":
        return "a mapping"
    if kind.get("type") == "array":
        return "a list"
    words = {"number": "number", "integer": "whole number", "string": "text", "boolean": "true, false"}
    return words.get(str(kind.get("type")), "any") + _range(kind)


def _range(kind: dict[str, Any]) -> str:
    limits = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most", "exclusiveMaximum": "below"}
    found = [f"{word} {kind[key]:g}" for key, word in limits.items() if key in kind and kind[key] < 2**62]
    return " " + " and ".join(found) if found else ""


def _escaped(text: str) -> str:
    return text.replace("|", "\\|")


if __name__ == "__main__":
    main()
