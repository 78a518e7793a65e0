"""What beside the order of a file tells layers of one shape apart: numbers of their names, and their neighbours.

The order of a PyTorch file is that of definition. It counts where the layers' own numbers rise with it, or where layers
that are certain lie between them, on both sides the same ones. Where a file has no order, numbers stand in for it, if
they can only be counted upwards.
"""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from regraft.weights.match.structure.paths import Paths
from regraft.weights.naming.layers import Layer
from regraft.weights.naming.naming import Pair

__all__ = [
    "BEHIND",
    "against_creation",
    "behind_convolutions",
    "by_creation_number",
    "by_numbers",
    "unconfirmed",
    "upwards_only",
]

BEHIND = "structure: right behind its convolution"
_NUMBER = re.compile(r"\d+")
_MOST_NUMBERS = 8


def unconfirmed(pairs: Sequence[Pair], certain: Sequence[Pair], paths: Paths) -> list[list[Pair]]:
    """Return which of the pairs, made by the order of definition, nothing else confirms; each time those of one shape
    between which the file does not decide.

    Args:
        pairs: Pairs by order.
        certain: Pairs by other evidence.
        paths: What runs before what in the model.
    """
    certain = list(certain)
    classes: dict[Any, list[Pair]] = {}
    for pair in pairs:
        classes.setdefault((pair.target.kind, pair.target.signature), []).append(pair)
    waiting = list(classes.values())
    while waiting:
        anchors, open_parts = _Anchors(certain, paths), []
        for members in waiting:
            for part in anchors.cut(members):
                if _is_confirmed(part):
                    certain += part
                else:
                    open_parts.append(part)
        if sum(map(len, open_parts)) == sum(map(len, waiting)):
            return open_parts
        waiting = open_parts
    return []


def behind_convolutions(
    norms: Sequence[Layer], pairs: Sequence[Pair], sources: Mapping[str, Layer], *, ordered: bool
) -> list[Pair]:
    """Pair normalisations that stand right behind a convolution, on both sides, whose place is known.

    Args:
        norms: The model's free normalisations.
        pairs: What is placed.
        sources: The file's free layers, and those that structure has placed.
        ordered: Whether the file's order is one of layers; else that of the numbers in the names is taken.
    """
    in_file = sorted(
        sources.values(), key=lambda one: one.order if ordered else (_series(one.name), _numbers(one.name)[1])
    )
    follower = {giver.name: layer for giver, layer in pairwise(in_file)}
    placed = {pair.target.name: pair.source for pair in pairs}
    found = []
    for norm in norms:
        giver = placed.get(norm.inputs[0]) if norm.inputs is not None and len(norm.inputs) == 1 else None
        behind = follower.get(giver.name) if giver is not None else None
        if giver is None or behind is None or behind.kind != "norm" or behind.shape != norm.shape:
            continue
        if ordered or _series(behind.name) == _series(giver.name):
            found.append(Pair(norm, behind, BEHIND))
    return found


class _Anchors:
    """Layers that are certain, in the order of both sides; none, where these orders differ."""

    def __init__(self, certain: Sequence[Pair], paths: Paths) -> None:
        pairs = sorted((pair for pair in certain if pair.target.kind != "other"), key=lambda pair: pair.target.order)
        rises = all(one.source.order < other.source.order for one, other in pairwise(pairs))
        self._pairs = pairs if rises else []
        self._here = [pair.target.order for pair in self._pairs]
        self._there = [pair.source.order for pair in self._pairs]
        self._paths = paths

    def cut(self, members: Sequence[Pair]) -> list[list[Pair]]:
        """Cut pairs in order wherever a layer that is certain runs between two of them, and stands there in the file;
        pairs that lie between others on one side than on the other stay together.
        """
        places = [(bisect(self._here, one.target.order), bisect(self._there, one.source.order)) for one in members]
        if any(here != there for here, there in places):
            return [list(members)]
        parts = [[members[0]]]
        for (before, (first, _)), (after, (last, _)) in pairwise(zip(members, places, strict=True)):
            if any(self._runs_between(self._pairs[place].target, before, after) for place in range(first, last)):
                parts.append([])
            parts[-1].append(after)
        return parts

    def _runs_between(self, anchor: Layer, first: Pair, last: Pair) -> bool:
        return self._paths.run_before(first.target.name, anchor.name) and self._paths.run_before(
            anchor.name, last.target.name
        )


def _is_confirmed(members: Sequence[Pair]) -> bool:
    """Return whether numbers in the names of these layers of one shape rise in their order."""
    return all(counts_on(one.source.name, other.source.name) for one, other in pairwise(members))


def counts_on(first: str, second: str) -> bool:
    """Return whether the first difference between two names is a number, or a single letter, that rises.

    A name without a number comes before the same one with a number.
    """
    left, right = (re.findall(r"\d+|[^\d./_-]+", name) for name in (first, second))
    for one, other in zip(left, right, strict=False):
        if one != other:
            if one.isdecimal() and other.isdecimal():
                return int(one) < int(other)
            return len(one) == len(other) == 1 and one.isalpha() and other.isalpha() and one < other
    return len(right) == len(left) + 1 and right[-1].isdecimal()


# --- files without an order ----------------------------------------------------------------------------------------


def by_creation_number(sources: Sequence[Layer]) -> list[Layer] | None:
    """Return layers called `conv2d`, `conv2d_1`, ... by their number; None where the names are not of that kind, or two
    have one number.
    """
    counted = {_creation(layer.name): layer for layer in sources}
    stems = {stem for stem, _ in counted}
    if len(counted) != len(sources) or len(stems) != 1:
        return None
    if not re.search(r"(conv|batch_norm|dense|normalization)", next(iter(stems))):
        return None
    return [counted[key] for key in sorted(counted)]


def against_creation(pairs: Sequence[Pair], certain: Sequence[Pair], paths: Paths) -> list[list[Pair]]:
    """Return which of the pairs, made by creation numbers, these numbers speak against: of two layers that were created
    one after the other the later runs first; each time those of one shape.

    Args:
        pairs: Pairs by creation numbers.
        certain: Pairs by other evidence.
        paths: What runs before what in the model.
    """
    created = sorted((*pairs, *certain), key=lambda pair: _creation(pair.source.name))
    wrong = {
        _creation(one.source.name)[0]
        for one, other in pairwise(created)
        if _creation(one.source.name)[0] == _creation(other.source.name)[0]
        and paths.run_before(other.target.name, one.target.name)
    }
    classes: dict[Any, list[Pair]] = {}
    for pair in pairs:
        classes.setdefault((pair.target.kind, pair.target.signature), []).append(pair)
    return [members for members in classes.values() if any(_creation(one.source.name)[0] in wrong for one in members)]


def _creation(name: str) -> tuple[str, int]:
    """Return what a layer is called, and its number among those called so: none is 0."""
    stem, _, number = name.rpartition("_")
    return (stem, int(number[:18])) if stem and number.isdecimal() else (name, 0)


def by_numbers(sources: Sequence[Layer]) -> list[Layer] | None:
    """Return layers whose names differ in numbers alone, in the order of these; None where other parts differ."""
    counted = {_numbers(layer.name): layer for layer in sources}
    if len({spelling for _, spelling in counted}) != 1 or len(counted) != len(sources):
        return None
    return [counted[key] for key in sorted(counted)]


def _numbers(name: str) -> tuple[tuple[int, ...], str]:
    """Return the numbers of a name, and the name without them."""
    return tuple(int(number[:18]) for number in _NUMBER.findall(name)[:_MOST_NUMBERS]), _NUMBER.sub("#", name)


def upwards_only(pairs: Sequence[Pair], certain: Sequence[Pair]) -> list[list[Pair]]:
    """Return which of the pairs, made by the numbers of names, might as well be counted downwards, or contradict the
    layers that are certain; each time those of one shape.

    Args:
        pairs: Pairs by numbers.
        certain: Pairs by other evidence.
    """
    classes: dict[Any, list[Pair]] = {}
    for pair in pairs:
        classes.setdefault((pair.target.kind, pair.target.signature), []).append(pair)
    turned = {
        pair.target.name: other.source.name
        for members in classes.values()
        for pair, other in zip(members, reversed(members), strict=True)
    }
    together = sorted((*pairs, *certain), key=lambda pair: pair.target.order)
    straight = [pair.source.name for pair in together]
    backwards = [turned.get(pair.target.name, pair.source.name) for pair in together]
    series = {_series(pair.source.name) for pair in pairs}
    good = {one for one in series if "falls" not in _ways(straight, one) and "rises" in _ways(backwards, one)}
    placed = {pair.target.name: pair.source.name for pair in together}
    return [
        members
        for members in classes.values()
        if not {_series(pair.source.name) for pair in members} <= good and not _in_step(members, placed)
    ]


def _in_step(members: Sequence[Pair], placed: Mapping[str, str]) -> bool:
    """Return whether normalisations are counted as the convolutions before them are: `bn3` behind `conv3`, or one
    further each time.
    """
    steps = set()
    for pair in members:
        giver = placed.get(pair.target.inputs[0], "") if pair.target.inputs and len(pair.target.inputs) == 1 else ""
        last = [_NUMBER.findall(name)[-1:] for name in (giver, pair.source.name)]
        steps.add(int(last[1][0][:18]) - int(last[0][0][:18]) if all(last) else None)
    return len(steps) == 1 and None not in steps and members[0].target.kind == "norm"


def _series(name: str) -> str:
    """Return what stands before the first number of a name."""
    return re.split(r"\d", name, maxsplit=1)[0]


def _ways(names: Sequence[str], series: str) -> set[str]:
    """Return how the numbers of one series of names go on from each to the next: `rises`, `falls`, or both."""
    found = set()
    for first, second in pairwise([name for name in names if _series(name) == series]):
        for one, other in zip(_NUMBER.findall(first), _NUMBER.findall(second), strict=False):
            if one != other:
                found.add("rises" if int(one[:18]) < int(other[:18]) else "falls")
                break
    return found
