"""What runs before what in a network, in few bits for each pair of layers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from regraft.weights.naming.layers import Layer

__all__ = ["Paths"]


class Paths:
    """For each layer all that run before it on a path to it: one bit of a number for each.

    Args:
        network: All layers of the model, in the order of execution.
    """

    def __init__(self, network: Mapping[str, Layer]) -> None:
        self._places = {name: place for place, name in enumerate(network)}
        self._before: dict[str, int] = {}
        for name, layer in network.items():
            if layer.inputs is None:
                continue
            found = 0
            for giver in layer.inputs:
                if giver in self._before:
                    found |= self._before[giver] | 1 << self._places[giver]
            self._before[name] = found

    @property
    def are_known(self) -> bool:
        """Whether the model could be run, so that its paths are known."""
        return bool(self._before)

    def run_before(self, first: str, later: str) -> bool:
        """Return whether a layer runs before another one on a path to it."""
        return first in self._places and bool(self._before.get(later, 0) >> self._places[first] & 1)

    def cut(self, layers: Sequence[Layer]) -> list[list[Layer]]:
        """Cut layers in the order of execution wherever all of the first part run before all of the rest."""
        everything = (1 << len(self._places)) - 1
        shared = [everything]  # from the last layer on: what runs before all of these
        for layer in reversed(layers):
            shared.append(shared[-1] & self._before.get(layer.name, 0))
        groups: list[list[Layer]] = [[]]
        open_bits = 0
        for place, layer in enumerate(layers):
            groups[-1].append(layer)
            open_bits |= 1 << self._places[layer.name]
            is_last = place + 1 == len(layers)
            if not is_last and open_bits & shared[len(layers) - place - 1] == open_bits:
                groups.append([])
                open_bits = 0
        return [group for group in groups if group]
