"""The recipe as a JSON schema, for editors that complete and check YAML while one types."""

from __future__ import annotations

import copy
from typing import Any

from pydantic import BaseModel

from regraft.recipe_aliases import ALIASES

__all__ = ["recipe_schema"]

_GROUPS = {"": "StageSettings", "augment": "AugmentSettings"}
_GROUPS |= {"early_stopping": "EarlyStoppingSettings", "plateau": "PlateauSettings"}


def recipe_schema(settings: type[BaseModel]) -> dict[str, Any]:
    """A JSON schema (draft 2020-12) of recipes as they are written: nothing is required but the name of a stage.

    Keras's spellings are in it, marked as deprecated, because a recipe may have them.
    """
    schema = settings.model_json_schema()
    groups: dict[str, Any] = schema["$defs"]
    for group in (schema, *groups.values()):
        for name, entry in group.get("properties", {}).items():
            _tidy(name, entry)
    for name, group_name in _GROUPS.items():
        for key, alias in ALIASES[name].items():
            text = f"Keras's spelling of {alias.name}" if alias.name else "of Keras; has no effect here"
            groups[group_name]["properties"][key] = {"deprecated": True, "description": text}
    defaults = copy.deepcopy(groups["StageSettings"])
    for name in ("name", "train"):
        del defaults["properties"][name]
    defaults |= {"title": "Defaults", "description": "What stages have that do not say otherwise."}
    del defaults["required"]
    groups["Defaults"] = defaults
    schema["properties"]["defaults"] = {"$ref": "#/$defs/Defaults"}
    del schema["required"]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema, "title": "A recipe of regraft"}


def _tidy(name: str, entry: dict[str, Any]) -> None:
    """Titles repeat the key; nothing else of pydantic's is left out."""
    entry.pop("title", None)
    for kind in entry.get("anyOf", ()):
        kind.pop("title", None)
