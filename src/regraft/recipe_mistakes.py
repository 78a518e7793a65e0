"""What is wrong with settings, one line for each key, with the nearest name for a misspelt one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel, ValidationError

from regraft.errors import nearest

__all__ = ["mistakes_of", "unknown_key"]

_KIND = re.compile(r"((constrained-)?(int|str|float|bool)|\w+Settings|(tuple|list|dict|literal)\[.*\])$")

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
    "split": "fractions",
    "splits": "fractions",
    "classes": "names",
    "class_names": "names",
    "preprocessing": "preprocess",
    "normalize": "preprocess",
    "degrees": "rotation",
}


def unknown_key(path: str, key: str, known: Sequence[str]) -> str:
    near = next((repr(word) for word in (_SYNONYMS.get(key.lower()),) if word in known), "") or nearest(key, known)
    return f"{path}: no such setting" + (f"; did you mean {near}?" if near else f"; known: {', '.join(known)}")


def mistakes_of(error: ValidationError, settings: type[BaseModel]) -> list[str]:
    """One line for each key; where a key may be of several kinds, pydantic has an entry for each kind."""
    lines: dict[str, list[str]] = {}
    given: dict[str, Any] = {}
    kinds: dict[str, list[str]] = {}
    for item in error.errors():
        loc = item["loc"]
        path = ".".join(str(part) for part in loc if not _KIND.match(str(part)))
        if item["type"] == "extra_forbidden":
            lines.setdefault(unknown_key(path, str(loc[-1]), _known_keys(settings, loc[:-1])), [])
            continue
        lines.setdefault(path, []).append(_reason(item))
        kinds.setdefault(path, []).append(item["type"])
        given[path] = item["input"]
    return [
        _line(path, _nearest_kind(reasons, kinds.get(path, [])), given.get(path, ...))
        for path, reasons in lines.items()
    ]


def _nearest_kind(reasons: list[str], kinds: Sequence[str]) -> list[str]:
    """Of a value that may be of several kinds, what is wrong with it as the kind that it is."""
    fitting = [reason for reason, kind in zip(reasons, kinds, strict=False) if not kind.endswith(("_type", "_parsing"))]
    return fitting or reasons


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


def _known_keys(settings: type[BaseModel], path: Sequence[Any]) -> list[str]:
    kind: Any = settings
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
