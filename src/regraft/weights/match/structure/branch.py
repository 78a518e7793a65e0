"""The part of a file that holds the network, where a projector or a decoder beside it has layers of the same shapes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from regraft.weights.naming.layers import Layer
from regraft.weights.naming.paths import dotted

__all__ = ["own_branch"]

_DEEPEST = 12
_LEAST_SHARE = 0.8  # of the network's layers that the file has


def own_branch(targets: Sequence[Layer], sources: Sequence[Layer], *, ordered: bool) -> list[Layer]:
    """Return the file's layers without those beside the network that have shapes of its layers.

    That is certain where nearly all of the network lies below one path, with as many layers of each such shape as the
    network has, and all others stand before or behind them; else all layers are returned.
    """
    wanted, given = (Counter(layer.signature for layer in side) for side in (targets, sources))
    surplus = {key for key, count in given.items() if 0 < wanted[key] < count}
    if not surplus:
        return list(sources)
    below: dict[str, Counter[Any]] = {}
    for layer in sources:
        for path in _paths(layer.name) if layer.signature in wanted else ():
            below.setdefault(path, Counter())[layer.signature] += 1
    least = _LEAST_SHARE * sum((wanted & given).values())
    whole = [
        path
        for path, counts in below.items()
        if all(counts[key] == wanted[key] for key in surplus) and sum((counts & wanted).values()) >= least
    ]
    top = min(whole, key=len, default=None)
    if top is None or any(not path.startswith(top) for path in whole):
        return list(sources)
    inside = {layer.name for layer in sources if dotted(layer.name).startswith(top)}
    crowded = [layer for layer in sources if layer.signature in surplus]
    places = [layer.order for layer in crowded if layer.name in inside]
    if ordered and any(min(places) < layer.order < max(places) for layer in crowded if layer.name not in inside):
        return list(sources)
    return [layer for layer in sources if layer.signature not in surplus or layer.name in inside]


def _paths(name: str) -> Iterator[str]:
    """Yield the paths above a layer, each with its dot."""
    name = dotted(name)
    at = name.find(".")
    for _ in range(_DEEPEST):
        if at < 0:
            return
        yield name[: at + 1]
        at = name.find(".", at + 1)
