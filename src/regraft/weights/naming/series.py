"""Numbered layers of two sides whose numbers differ: `blocks.1 ... blocks.4` and `blocks.0 ... blocks.3`.

Names are compared part by part; a single letter counts as a number does (`conv_a`, `conv_b`). Numbers mean themselves
as long as the one side's are among the other's; where each side has numbers that the other lacks, they are ranks, and
are paired in order where only one way to do so fits; where none or several do, numbers say nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from regraft.weights.naming.layers import Fits, Layer
from regraft.weights.naming.paths import counted

__all__ = ["Aligned", "align"]

_LEAST = 2  # a series of one is no series, except below one that was exchanged as a whole


@dataclass
class _Node:
    """A part of a path: the layer of that name, and what lies below it."""

    layer: Layer | None = None
    children: dict[str, _Node] = field(default_factory=dict)


@dataclass(frozen=True)
class Aligned:
    """Two layers of the same name, where numbers may have been exchanged; `renumbered` says how, or is empty."""

    target: Layer
    source: Layer
    renumbered: str = ""


def align(targets: Mapping[str, Layer], sources: Mapping[str, Layer], fits: Fits) -> list[Aligned]:
    """Pair layers by their names.

    Args:
        targets: The model's layers by the names to go by (with dots).
        sources: The file's.
        fits: Whether two layers can be one.
    """
    return list(_walk(_tree(targets), _tree(sources), "", "", fits))


def _tree(layers: Mapping[str, Layer]) -> _Node:
    root = _Node()
    for name, layer in layers.items():
        node = root
        for part in name.split("."):
            node = node.children.setdefault(part, _Node())
        node.layer = layer
    return root


def _walk(target: _Node, source: _Node, path: str, how: str, fits: Fits) -> Iterator[Aligned]:
    if target.layer is not None and source.layer is not None:
        yield Aligned(target.layer, source.layer, how)
    for there, here, exchanged in _children(target, source, path, fits, least=1 if how else _LEAST):
        yield from _walk(target.children[here], source.children[there], f"{path}{here}.", exchanged or how, fits)


def _children(target: _Node, source: _Node, path: str, fits: Fits, *, least: int) -> Iterator[tuple[str, str, str]]:
    """Return (name of the file, name of the model, exchange) of the parts below two nodes that belong together."""
    numbered, given = _series(target), _series(source)
    for stem, members in numbered.items():
        others = given.get(stem, {})
        if stem is None or set(members) <= set(others) or set(others) <= set(members):
            yield from ((others[key], members[key], "") for key in members if key in others)
            continue
        if min(len(members), len(others)) < least:
            continue
        ranked = _ranked([members[key] for key in sorted(members)], [others[key] for key in sorted(others)],
                         target, source, fits)  # fmt: skip
        if ranked is not None:
            how = f"{path}{ranked[0][0]}..{ranked[-1][0]} -> {path}{ranked[0][1]}..{ranked[-1][1]}"
            yield from ((there, here, how) for there, here in ranked)


def _series(node: _Node) -> dict[str | None, dict[Any, str]]:
    """Return children by what stands before their number; those without a number are under None, by name."""
    series: dict[str | None, dict[Any, str]] = {}
    for name in node.children:
        count = counted(name)
        if count is None or (name[-1].isdecimal() and f"{count[0]}{count[1]}" != name):  # `03` is no number
            series.setdefault(None, {})[name] = name
        else:
            series.setdefault(count[0], {})[count[1]] = name
    return series


def _ranked(
    targets: Sequence[str], sources: Sequence[str], target: _Node, source: _Node, fits: Fits
) -> list[tuple[str, str]] | None:
    """Return the one way to lay the shorter series into the longer one in order, as (source, target); None if there are
    more.

    Of two series of one length the last may differ: a classifier of other classes.
    """
    if len(targets) == len(sources):
        together = list(zip(sources, targets, strict=True))
        for place, (there, here) in enumerate(together):
            if not _same(target.children[here], source.children[there], fits) and (
                place + 1 < len(together) or place == 0
            ):
                return None
        return together
    is_target_short = len(targets) < len(sources)
    short, long = (targets, sources) if is_target_short else (sources, targets)

    def fit(one: str, other: str) -> bool:
        here, there = (one, other) if is_target_short else (other, one)
        return _same(target.children[here], source.children[there], fits)

    places = _only_embedding(short, long, fit)
    if places is None:
        return None
    pairs = [(one, long[place]) for one, place in zip(short, places, strict=True)]
    return [(other, one) if is_target_short else (one, other) for one, other in pairs]


def _only_embedding(short: Sequence[str], long: Sequence[str], fit: Callable[[str, str], bool]) -> list[int] | None:
    """Return the places in `long` that `short` takes in order; None where there is no such way, or more than one."""
    first, last = _greedy(short, long, fit), _greedy(short[::-1], long[::-1], fit)
    if first is None or last is None:
        return None
    from_behind = [len(long) - 1 - place for place in last[::-1]]
    return first if first == from_behind else None


def _greedy(short: Sequence[str], long: Sequence[str], fit: Callable[[str, str], bool]) -> list[int] | None:
    places: list[int] = []
    for one in short:
        start = places[-1] + 1 if places else 0
        place = next((at for at in range(start, len(long)) if fit(one, long[at])), None)
        if place is None:
            return None
        places.append(place)
    return places


def _same(target: _Node, source: _Node, fits: Fits) -> bool:
    """Return whether all that lies below two nodes has the same names, or as many numbers, and fits.

    What only the file has may be tensors of no known kind: buffers that are computed, for one.
    """
    if target.layer is not None and (source.layer is None or not _alike(target.layer, source.layer, fits)):
        return False
    if target.layer is None and source.layer is not None and source.layer.kind != "other":
        return False
    below, given = _series(target), _series(source)
    for stem in {**below, **given}:
        members, others = below.get(stem, {}), given.get(stem, {})
        if stem is None:
            left = [name for name in others if name not in members]
            pairs = [(name, name) for name in members if name in others]
        else:
            left = [] if members else list(others.values())
            pairs = [(members[a], others[b]) for a, b in zip(sorted(members), sorted(others), strict=False)]
        if len(pairs) < len(members) or len(pairs) + len(left) < len(others):
            return False
        if not all(_is_loose(source.children[name]) for name in left):
            return False
        if not all(_same(target.children[here], source.children[there], fits) for here, there in pairs):
            return False
    return True


def _alike(target: Layer, source: Layer, fits: Fits) -> bool:
    """Return whether two layers fit; of those of no known kind the model's tensors must be among the file's."""
    if target.kind != "other":
        return fits(target, source)
    return all(source.leaves.get(leaf) == count for leaf, count in target.leaves.items())


def _is_loose(node: _Node) -> bool:
    return (node.layer is None or node.layer.kind == "other") and all(map(_is_loose, node.children.values()))
