"""What a file's own description says of its network: what feeds each layer, and how each layer was set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["FileGraph", "Given", "Pads", "nearest_givers"]

_MOST_GIVERS = 256  # more than add up in any network that people train
Pads = tuple[int, int, int, int]  # above, left, below, right
_NO_PADS: Pads = (0, 0, 0, 0)


@dataclass(frozen=True)
class Given:
    """What reaches a point of the network.

    Attributes:
        layers: The nearest layers with weights ("" is the image).
        pools: The poolings on the way.
        pads: The paddings on the way that are layers of their own; None among them where one is not known.
    """

    layers: frozenset[str] = frozenset()
    pools: frozenset[str] = frozenset()
    pads: frozenset[Pads | None] = frozenset()

    def __or__(self, other: Given) -> Given:
        return Given(self.layers | other.layers, self.pools | other.pools, self.pads | other.pads)

    def pooled(self, pool: str) -> Given:
        """Return the state behind a pooling, which used up what was padded for it."""
        return Given(self.layers, self.pools | {pool})

    def padded(self, pads: Pads | None) -> Given:
        """Return the state behind a padding; None where it is not known how much it adds."""
        if pads == _NO_PADS:
            return self
        so_far = self.pads or frozenset([_NO_PADS])
        return Given(self.layers, self.pools, frozenset(_sum(one, pads) for one in so_far))


@dataclass
class FileGraph:
    """For each layer of the file: its inputs ("" is the image), the poolings before it, and its settings.

    `attributes` are `stride`, `dilation`, `eps` and `pads` (`same`, or how much on each side), where they are known.
    """

    inputs: dict[str, frozenset[str]] = field(default_factory=dict)
    pools: dict[str, frozenset[str]] = field(default_factory=dict)
    attributes: dict[str, dict[str, Any]] = field(default_factory=dict)
    _places: dict[str, int] = field(default_factory=dict, repr=False)

    def add(self, layer: str, given: Given, attributes: Mapping[str, Any]) -> Given:
        """Add a layer with weights; returns the state behind it."""
        places = self._places
        places.setdefault(layer, len(places))
        self.inputs[layer] = self.inputs.get(layer, frozenset()) | nearest_givers(given.layers - {layer}, places)
        self.pools[layer] = self.pools.get(layer, frozenset()) | given.pools
        found = dict(attributes)
        if "pads" in found and (pads := _in_all(given, found.pop("pads"))) is not None:
            found["pads"] = pads
        self.attributes.setdefault(layer, {}).update(found)
        return Given(frozenset([layer]))


def nearest_givers(layers: frozenset[str], places: Mapping[str, int]) -> frozenset[str]:
    """Return the layers that reach a point, the latest of them where there are very many.

    Behind each block of a residual network stands what all blocks before it added: without a limit, what is kept of a
    network grows with the square of its depth.

    Args:
        layers: All of them.
        places: Their order of execution; the image, "", has none and stays.
    """
    if len(layers) <= _MOST_GIVERS:
        return layers
    latest = sorted(layers - {""}, key=lambda name: places.get(name, -1))[-_MOST_GIVERS:]
    return frozenset(latest) | (layers & {""})


def _in_all(given: Given, own: str | Pads) -> str | Pads | None:
    """Return the total padding before a layer: its own and that of layers before it; None where that is unknown."""
    if not given.pads:
        return own
    before = next(iter(given.pads)) if len(given.pads) == 1 else None
    return None if isinstance(own, str) else _sum(own, before)


def _sum(one: Pads | None, other: Pads | None) -> Pads | None:
    if one is None or other is None:
        return None
    return one[0] + other[0], one[1] + other[1], one[2] + other[2], one[3] + other[3]
