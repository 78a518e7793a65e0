"""Columns of zeros and ones, judged by all of their rows: which there are, and how they write yes and no."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

__all__ = ["FlagColumns", "is_flag", "survey"]

_WORDS = {"false": False, "true": True, "no": False, "yes": True}


@lru_cache(maxsize=4096)
def is_flag(cell: str) -> bool | None:
    """Return the boolean value of a cell such as `0`, `1.0`, `true` or `no`; None for any other cell."""
    number = _number(cell)
    return _WORDS.get(cell.lower()) if number is None else {0.0: False, 1.0: True}.get(number)


def _number(cell: str) -> float | None:
    if not cell or cell[0] not in "+-.0123456789":
        return None  # of a million cells most are a digit or a word: `float` raises slowly
    try:
        return float(cell)
    except ValueError:
        return None


@lru_cache(maxsize=4096)  # a table has millions of cells, and flags few spellings
def _kind(cell: str) -> str:
    """Return the kind of a cell: `zero`, `one`, `minus` (-1) or `other`; empty for an empty cell."""
    if not cell:
        return ""
    flag = is_flag(cell)
    if flag is None:
        return "minus" if _number(cell) == -1 else "other"
    return "one" if flag else "zero"


def _holds_flags(counts: Counter[str]) -> bool:
    """Return whether a column is meant to hold zeros and ones: at least half of its cells do, or say -1."""
    flags = counts["zero"] + counts["one"]
    return flags > 0 and flags + counts["minus"] >= counts["other"]


@dataclass(frozen=True)
class FlagColumns:
    """The columns of zeros and ones of a table.

    Attributes:
        places: Their positions.
        no: How they write no beside 0, where no cell says 0: `-1` (as CelebA does) or, where none says that either, an
            empty cell. None where a cell says 0: then others are uncertain.
    """

    places: frozenset[int]
    no: str | None = None


def survey(rows: Iterable[Sequence[str]], others: Sequence[int]) -> FlagColumns:
    """Return the columns of zeros and ones, judged by all rows, and the cell by which they say no beside 0.

    Args:
        rows: The cells of every row.
        others: The positions of the columns that may.
    """
    counts: dict[int, Counter[str]] = {place: Counter() for place in others}
    for cells in rows:
        for place, count in counts.items():
            if place < len(cells):
                count[_kind(cells[place])] += 1
    found = {place: count for place, count in counts.items() if _holds_flags(count)}
    ways = {kind for count in found.values() for kind in count}
    no = None if "zero" in ways else "-1" if "minus" in ways else "" if "" in ways else None
    return FlagColumns(frozenset(found), no)
