"""How names are listed in sentences for people."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["MOST_NAMED", "some"]

MOST_NAMED = 6


def some(names: Sequence[str], most: int = MOST_NAMED) -> str:
    """Return the first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
