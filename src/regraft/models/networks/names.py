"""The names that `build_model` takes, and what is said about others."""

from __future__ import annotations

import difflib
import fnmatch

import timm

from regraft.errors import SettingsError, nearest
from regraft.models.networks.builtin_models import OWN

__all__ = ["check_name", "closest_name", "is_buildable", "list_models"]


def list_models(pattern: str = "*") -> list[str]:
    """Return names that `build_model` takes and that fit a shell pattern."""
    return [name for name in sorted([*timm.list_models(), *OWN]) if fnmatch.fnmatch(name, pattern)]


def is_buildable(name: str) -> bool:
    """Return whether `build_model` knows the architecture of this name."""
    return name in OWN or bool(timm.is_model(name))


def closest_name(name: str) -> str:
    """Return the name that is most like one that is not known; empty where it is known, or none is near."""
    near = [] if is_buildable(name) else difflib.get_close_matches(name, [*timm.list_models(), *OWN], n=1, cutoff=0.6)
    return near[0] if near else ""


def check_name(name: str) -> None:
    """Raise unless `build_model` knows the name.

    Raises:
        SettingsError: There is no such architecture, or it has no weights with that tag; names that exist are given.
    """
    if not is_buildable(name):
        known = [*timm.list_models(), *OWN]
        near = nearest(name, known) or nearest(name.lower().replace("-", "_"), known)
        raise SettingsError(
            f"There is no model {name!r}{f'; did you mean {near}?' if near else '.'}",
            "" if near else f"one of the {len(known)} names that regraft knows",
            "`regraft models 'resnet*'` to list names by pattern",
        )
    architecture, _, tag = name.partition(".")
    tags = [known.partition(".")[2] for known in timm.list_pretrained(architecture + ".*")] if tag else []
    if tag and tag not in tags:
        raise SettingsError(
            f"{architecture!r} has no weights with the tag {tag!r}.",
            f"its tags are: {', '.join(tags) or 'none'}",
            f"`{architecture}.TAG` with one of them, or `{architecture}` alone",
        )
