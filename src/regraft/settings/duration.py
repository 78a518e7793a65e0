"""Durations as people write them: 90s, 10m, 1h30m, 30d."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field

__all__ = ["Duration", "seconds_of"]

_UNITS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}
_PATTERN = re.compile(
    r"(?:(?P<d>\d+(?:\.\d+)?)d)?(?:(?P<h>\d+(?:\.\d+)?)h)?(?:(?P<m>\d+(?:\.\d+)?)m)?(?:(?P<s>\d+(?:\.\d+)?)s)?",
    re.ASCII,
)


def seconds_of(text: str) -> float:
    """Return the seconds of a duration.

    Raises:
        ValueError: It is none, or nothing long.
    """
    text = text.strip().lower().replace(" ", "")
    if text.replace(".", "", 1).isdecimal():
        raise ValueError(f"has no unit; write {text}m or {text}s")
    found = _PATTERN.fullmatch(text)
    seconds = sum(float(found[unit] or 0) * size for unit, size in _UNITS.items()) if found else 0.0
    if not seconds:
        raise ValueError("must be a duration above 0, such as 90s, 10m or 1h30m")
    return seconds


def _checked(text: str) -> str:
    seconds_of(text)
    return text


Duration = Annotated[str, Field(max_length=40), AfterValidator(_checked)]
