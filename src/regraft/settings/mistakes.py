"""What is wrong with settings, one line for each key, with the nearest name for a misspelt one."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from regraft.errors import nearest
from regraft.wording import quantity

__all__ = ["SEVERAL", "fields_of", "mistakes_of", "unknown_key"]

SEVERAL = "several_mistakes"  # the type of an error that lists them as `lines` in its context
# Parts of pydantic's paths that name an alternative of a union, not a key.
_KIND = re.compile(
    r"((constrained-)?(int|str|float|bool)|Schedule|\w+Settings|(tuple|list|dict|literal|function-\w+)\[.*\])$"
)
_QUOTED = re.compile(r"'([^']+)'")
_BOUNDS = {
    "greater_than_equal": ("ge", "{} or more"),
    "greater_than": ("gt", "above {}"),
    "less_than_equal": ("le", "at most {}"),
    "less_than": ("lt", "below {}"),
}
_LENGTHS = {"too_short": ("min_length", "at least"), "too_long": ("max_length", "at most")}
_UNKNOWN = ("extra_forbidden", "unexpected_keyword_argument")
_PAIR = {"must be a whole number", "must be a list"}
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


def fields_of(settings: Any) -> dict[str, Any]:
    """Return the settings of a group by key, as pydantic describes them; empty for anything else."""
    return dict(getattr(settings, "__pydantic_fields__", {}))


def unknown_key(path: str, key: str, known: Sequence[str], elsewhere: Sequence[str] = ()) -> str:
    """Say that there is no such setting here, and where it is or which one was meant.

    Args:
        path: The key's whole path.
        key: Its last part.
        known: The keys of its group.
        elsewhere: Where settings of this name are in other groups.
    """
    near = next((repr(word) for word in (_SYNONYMS.get(key.lower()),) if word in known), "")
    near = near or " or ".join(map(repr, elsewhere)) or nearest(key, known)
    return f"{path}: no such setting" + (f"; did you mean {near}?" if near else f"; known: {', '.join(known)}")


def mistakes_of(error: ValidationError, settings: type) -> list[str]:
    """Return one line per key; where a key may be of several kinds, pydantic has an entry for each kind."""
    lines: dict[str, list[str]] = {}
    given: dict[str, Any] = {}
    kinds: dict[str, list[str]] = {}
    for item in error.errors():
        loc = item["loc"]
        path = ".".join(str(part) for part in loc if not _KIND.match(str(part)))
        if item["type"] in _UNKNOWN:
            key = str(loc[-1])
            lines.setdefault(unknown_key(path, key, _known_keys(settings, loc[:-1]), _elsewhere(settings, key)), [])
        elif loc[-1:] == ("[key]",):
            path, known = path.removesuffix(".[key]"), _QUOTED.findall(item["ctx"].get("expected", ""))
            lines.setdefault(unknown_key(path, str(item["input"]), known), [])
        elif item["type"] == SEVERAL:
            lines |= {f"{path}: {line}" if path else line: [] for line in item["ctx"]["lines"]}
        else:
            lines.setdefault(path, []).append(_reason(item))
            kinds.setdefault(path, []).append(item["type"])
            given[path] = item["input"]
    inside = [path for path in lines if any(other.startswith((f"{path}.", f"{path}: ")) for other in lines)]
    return [
        _line(path, _nearest_kind(reasons, kinds.get(path, []), given.get(path)), given.get(path, ...))
        for path, reasons in lines.items()
        if path not in inside  # of a union, what is wrong within the right kind counts
    ]


def _nearest_kind(reasons: list[str], kinds: Sequence[str], given: Any) -> list[str]:
    """Pick what is wrong with a value as the kind that it is, where it may be of several kinds.

    Where a number may be a word instead, text is taken for neither, and a number is not compared with the words.
    """
    others = ["_type", "_parsing"]
    if any(kind.startswith(("float_", "int_")) for kind in kinds) or isinstance(given, int | float):
        others.append("literal_error")
    fitting = [reason for reason, kind in zip(reasons, kinds, strict=False) if not kind.endswith(tuple(others))]
    return fitting or reasons


def _line(path: str, reasons: Sequence[str], given: Any) -> str:
    if not reasons:
        return path
    shown = given is None or isinstance(given, (str, int, float, bool))
    unique = list(dict.fromkeys(reasons))
    if path.endswith("image_size") and set(unique) >= _PAIR:
        others = [reason for reason in unique if reason not in _PAIR]
        unique = ["must be a whole number of pixels, or two as [height, width]", *others]
    text = ", or ".join([unique[0], *(reason.removeprefix("must be ") for reason in unique[1:])])
    return f"{path}: {text}" + (f"; it is {given!r}" if shown and not text.endswith("?") else "")


def _reason(item: Any) -> str:
    named = {
        "missing": "is missing",
        "model_type": "must be a mapping",
        "dataclass_type": "must be a mapping",
        "dict_type": "must be a mapping",
        "list_type": "must be a list",
        "tuple_type": "must be a list",
        "int_parsing": "must be a whole number",
        "int_type": "must be a whole number",
        "int_from_float": "must be a whole number",
        "float_parsing": "must be a number",
        "float_type": "must be a number",
        "string_type": "must be a string",
        "string_too_short": "must not be empty",
        "bool_parsing": "must be true or false",
        "bool_type": "must be true or false",
    }
    kind, context = item["type"], item.get("ctx", {})
    if kind in _BOUNDS:
        key, text = _BOUNDS[kind]
        return f"must be {text.format(f'{context[key]:,}' if type(context[key]) is int else f'{context[key]:g}')}"
    if kind in _LENGTHS:
        key, text = _LENGTHS[kind]
        return f"must have {text} {quantity(context[key], 'entry', 'entries')}, not {context['actual_length']}"
    message: str = item["msg"]
    return named.get(kind, message.removeprefix("Value error, ").replace("Input should be", "must be"))


def _known_keys(settings: type, path: Sequence[Any]) -> list[str]:
    kind: Any = settings
    for part in path:
        if part in fields_of(kind):
            groups = _groups_in(fields_of(kind)[part].annotation)
            kind = groups[0] if groups else None
    return sorted(fields_of(kind))


def _elsewhere(settings: type, key: str) -> list[str]:
    """Return the full keys of settings of this name, or of a synonym, one group deep."""
    keys = []
    for section, field in fields_of(settings).items():
        for group in _groups_in(field.annotation):
            path = f"{section}.*" if "list[" in str(field.annotation) else section
            words = (key, _SYNONYMS.get(key.lower(), key))
            keys += [f"{path}.{word}" for word in dict.fromkeys(words) if word in fields_of(group)]
    return keys


def _groups_in(annotation: Any) -> list[Any]:
    """Return the groups of settings among the alternatives of a type."""
    if isinstance(annotation, type) and fields_of(annotation):
        return [annotation]
    return [group for part in getattr(annotation, "__args__", ()) for group in _groups_in(part)]
