"""The recipe as a JSON schema, for editors that complete and check YAML."""

from __future__ import annotations

import copy
from typing import Any

from pydantic import BaseModel

from regraft.recipe.aliases import ALIASES

__all__ = ["recipe_schema"]

_GROUPS = {"": "Stage", "augment": "Augment", "early_stopping": "EarlyStopping", "plateau": "Plateau"}


def recipe_schema(settings: type[BaseModel]) -> dict[str, Any]:
    """Return a JSON schema (draft 2020-12) of recipes as written: only the name of a stage is required.

    Keras's spellings are in it, marked as deprecated, because a recipe may have them.
    """
    schema = settings.model_json_schema()
    groups: dict[str, Any] = schema["$defs"]
    for group in (schema, *groups.values()):
        group["description"] = group["description"].partition("\n\nAttributes:")[0]
        for name, entry in group.get("properties", {}).items():
            _tidy(name, entry)
    for name, group_name in _GROUPS.items():
        for key, alias in ALIASES[name].items():
            text = f"Keras's spelling of {alias.name}" if alias.name else "Keras only; has no effect here"
            groups[group_name]["properties"][key] = {"deprecated": True, "description": text}
    defaults = copy.deepcopy(groups["Stage"])
    for name in ("name", "train"):
        del defaults["properties"][name]
    defaults |= {"title": "Defaults", "description": "Settings of stages that do not set their own."}
    del defaults["required"]
    groups["Defaults"] = defaults
    schema["properties"]["defaults"] = {"$ref": "#/$defs/Defaults"}
    del schema["required"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "A recipe of regraft"}


def _tidy(name: str, entry: dict[str, Any]) -> None:
    """Remove titles, which repeat the key."""
    entry.pop("title", None)
    for kind in entry.get("anyOf", ()):
        kind.pop("title", None)
