"""Two networks laid over each other: layers that have the same shape and the same surroundings in both.

Colour refinement (Weisfeiler and Leman 1968): every layer starts with the colour of its shape and takes on the colours
of what feeds it, again and again, until its colour stands for all that runs before it; where two layers still look the
same, what they feed tells them apart. What remains equal is ambiguous.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from regraft.weights.naming.layers import Layer
from regraft.weights.naming.naming import Pair

__all__ = ["Network", "by_graph"]


@dataclass
class Network:
    """One side: its layers, what feeds each (nearest layers), and the poolings before each."""

    layers: Mapping[str, Layer]
    inputs: Mapping[str, frozenset[str]]
    pools: Mapping[str, frozenset[str]]


Colours = dict[str, int]


def by_graph(model: Network, file: Network, anchors: Mapping[str, str], *, kernels_only: bool = False) -> list[Pair]:
    """Return pairs of layers that are unique by their surroundings in both networks.

    Args:
        model: The model.
        file: The file's own graph.
        anchors: Layers that are paired already, {model: file}.
        kernels_only: Whether normalisations are looked through, too: those of the file were folded into its kernels.
    """
    looked_through = ("other", "norm") if kernels_only else ("other",)
    model, file = _without(model, looked_through), _without(file, looked_through)
    known = {target: source for target, source in anchors.items() if target in model.inputs}
    for with_pools in (True, False):
        pairs = _refine(model, file, known, with_pools)
        if pairs:
            return pairs
    return []


def _without(network: Network, kinds: tuple[str, ...]) -> Network:
    """Look through layers that the other side has no counterpart for (a Normalization, an activation with weights)."""
    skipped = {name for name in network.inputs if name not in network.layers or network.layers[name].kind in kinds}
    inputs = {
        name: _through(name, network.inputs, skipped, frozenset()) for name in network.inputs if name not in skipped
    }
    return Network(network.layers, inputs, network.pools)


def _through(
    name: str, inputs: Mapping[str, frozenset[str]], skipped: set[str], seen: frozenset[str]
) -> frozenset[str]:
    found: set[str] = set()
    for giver in inputs.get(name, ()):
        if giver in skipped and giver not in seen:
            found |= _through(giver, inputs, skipped, seen | {giver})
        elif giver not in skipped:
            found.add(giver)
    return frozenset(found)


def _refine(model: Network, file: Network, anchors: Mapping[str, str], with_pools: bool) -> list[Pair]:
    table: dict[object, int] = {}

    def colour(key: object) -> int:
        return table.setdefault(key, len(table))

    reverse = {source: target for target, source in anchors.items()}
    sides = []
    for network, named in ((model, {target: target for target in anchors}), (file, reverse)):
        start = {}
        for name in network.inputs:
            pools = tuple(sorted(network.pools.get(name, ()))) if with_pools else ()
            anchor = named.get(name)
            start[name] = colour(("anchor", anchor)) if anchor else colour((network.layers[name].signature, pools))
        sides.append(start)
    forward = [_spread(network.inputs, start, colour) for network, start in zip((model, file), sides, strict=True)]
    found: dict[str, str] = {}
    colours = forward
    _take_unique(colours, found)
    outputs = [_outputs(network.inputs) for network in (model, file)]
    for _ in range(len(model.inputs)):
        refined = [_step(side, after, colour) for side, after in zip(colours, outputs, strict=True)]
        before = len(found)
        _take_unique(refined, found)
        if len(found) == before and all(
            len(set(new.values())) == len(set(old.values())) for new, old in zip(refined, colours, strict=True)
        ):
            break
        colours = refined
    _take_remaining(forward, found)
    return [
        Pair(model.layers[target], file.layers[source], "graph: the same surroundings in the file's own graph")
        for target, source in found.items()
        if target not in anchors
    ]


def _spread(inputs: Mapping[str, frozenset[str]], start: Colours, colour: object) -> Colours:
    """Return colours that stand for all that runs before a layer; layers in a cycle keep theirs."""
    done: Colours = {}
    waiting = list(start)
    while waiting:
        later = []
        for name in waiting:
            givers = [giver for giver in inputs[name] if giver in start]
            if all(giver in done for giver in givers):
                image = "" in inputs[name]
                done[name] = colour((start[name], image, tuple(sorted(done[giver] for giver in givers))))  # type: ignore[operator]
            else:
                later.append(name)
        if len(later) == len(waiting):
            return done | {name: start[name] for name in later}
        waiting = later
    return done


def _outputs(inputs: Mapping[str, frozenset[str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {name: [] for name in inputs}
    for name, givers in inputs.items():
        for giver in givers:
            if giver in found:
                found[giver].append(name)
    return found


def _step(colours: Colours, outputs: Mapping[str, list[str]], colour: object) -> Colours:
    return {
        name: colour((own, tuple(sorted(colours[after] for after in outputs[name]))))  # type: ignore[operator]
        for name, own in colours.items()
    }


def _take_unique(colours: list[Colours], found: dict[str, str]) -> None:
    """Pair the layers whose colour no other layer of their side has."""
    holders = [_holders(side) for side in colours]
    taken = set(found.values())
    for colour, targets in holders[0].items():
        sources = holders[1].get(colour, [])
        if len(targets) == len(sources) == 1 and targets[0] not in found and sources[0] not in taken:
            found[targets[0]] = sources[0]


def _take_remaining(forward: list[Colours], found: dict[str, str]) -> None:
    """Pair the last two of a class where all others are paired."""
    holders = [_holders(side) for side in forward]
    taken = set(found.values())
    for colour, targets in holders[0].items():
        sources = holders[1].get(colour, [])
        left = [name for name in targets if name not in found], [name for name in sources if name not in taken]
        if len(targets) == len(sources) and len(left[0]) == len(left[1]) == 1:
            found[left[0][0]] = left[1][0]


def _holders(colours: Colours) -> dict[int, list[str]]:
    holders: dict[int, list[str]] = {}
    for name, own in colours.items():
        holders.setdefault(own, []).append(name)
    return holders
