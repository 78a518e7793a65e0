"""Pairs whose order differs between the sides, though each side counts its layers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Any

from regraft.weights.naming.naming import Pair
from regraft.weights.naming.paths import numbers_of

__all__ = ["inverted"]

_MOST_COMPARED = 64


def inverted(pairs: Iterable[Pair], *, ordered: bool) -> list[list[Pair]]:
    """Return groups of pairs whose order differs between the sides: of one shape found by several rules, or of other
    numbers.

    Args:
        pairs: What was matched.
        ordered: Whether the file's order is one of layers; where it is not, only numbers in the names are compared.
    """
    pairs = sorted(pairs, key=lambda pair: pair.target.order)
    classes: dict[object, list[Pair]] = {}
    for pair in pairs:
        if pair.target.kind != "other" and not pair.rule.startswith(("map", "graph")):
            classes.setdefault((pair.target.kind, pair.target.signature), []).append(pair)
    found = _backwards(pairs) if ordered else []
    for in_order in classes.values():
        if len({pair.rule for pair in in_order}) > 1:
            turned = _turned([(pair, pair.source.order) for pair in in_order]) if ordered else []
            for series in _numbered(in_order):
                turned += _turned(series)
            told = {id(pair) for others in found for pair in others}
            if group := [pair for pair in in_order if id(pair) not in told and any(pair is one for one in turned)]:
                found.append(group)
    return found


def _backwards(pairs: Sequence[Pair]) -> list[list[Pair]]:
    """Return series whose numbers were exchanged in rising order, though the file's layers stand in falling order."""
    series: dict[tuple[str, str], list[Pair]] = {}
    for pair in pairs:
        if pair.renumbered:
            series.setdefault((pair.renumbered, numbers_of(pair.source.name)[0]), []).append(pair)
    return [members for members in series.values() if _falls([pair.source.order for pair in members])]


def _falls(places: Sequence[int]) -> bool:
    """Return whether most of two places, the one before the other, fall; of a long series some tell."""
    some = places[:: max(1, len(places) // _MOST_COMPARED)]
    falls = [one > later for one, later in combinations(some, 2)]
    return 2 * sum(falls) > len(falls)


def _numbered(pairs: Sequence[Pair]) -> list[list[tuple[Pair, tuple[int, ...]]]]:
    """Return pairs whose layers of the file differ in numbers alone, with these numbers."""
    series: dict[str, list[tuple[Pair, tuple[int, ...]]]] = {}
    for pair in pairs:
        spelling, numbers = numbers_of(pair.source.name)
        series.setdefault(spelling, []).append((pair, numbers))
    return list(series.values())


def _turned(places: Sequence[tuple[Pair, Any]]) -> list[Pair]:
    """Return pairs, in the model's order, that come before one of another rule in the file's."""
    last: dict[str, tuple[Pair, Any]] = {}
    found = []
    for pair, place in places:
        for rule, (before, highest) in last.items():
            if rule != pair.rule and place < highest:
                found += [before, pair]
        if pair.rule not in last or place > last[pair.rule][1]:
            last[pair.rule] = pair, place
    return found
