"""The last rule: layers of equal shape, aligned by the order of execution, refusing where two assignments are possible.

Two layers of one shape can be told apart by order only if one of them always runs before the other, and only if the
file's order means anything. Parallel branches never can; what they would need is said in the report.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from regraft.weights.layers import Layer
from regraft.weights.naming import Fits, Pair

__all__ = ["Alignment", "by_structure"]

# Below this share of layers that could be placed, equal shapes are a coincidence and nothing is placed at all.
_LEAST_SHARE = 0.8
_DECIDES = "names, the file's own graph (a full model instead of weights alone), or --map would decide"
_PARALLEL = f"they run in parallel branches; {_DECIDES}"
_NO_ORDER = f"the file's order does not tell them apart; {_DECIDES}"
_COUNTS = f"the file has {{}} layers of this shape and the model {{}}; {_DECIDES}"


@dataclass
class Alignment:
    """What structure decides, and what it cannot: (targets, sources, what would decide)."""

    pairs: list[Pair] = field(default_factory=list)
    ambiguous: list[tuple[list[Layer], list[Layer], str]] = field(default_factory=list)


def by_structure(
    targets: Mapping[str, Layer],
    sources: Mapping[str, Layer],
    network: Mapping[str, Layer],
    fits: Fits,
    *,
    ordered: bool,
) -> Alignment:
    """Align the layers that no other rule has placed.

    Args:
        targets: The model's free layers.
        sources: The file's free layers, in its order.
        network: All the model's layers, for what runs before what.
        fits: Whether two layers can be one.
        ordered: Whether the file's order is an order of layers.
    """
    alignment = Alignment()
    free_targets = [layer for layer in targets.values() if layer.kind != "other"]
    free_sources = [layer for layer in sources.values() if layer.kind != "other"]
    if not _plausible(free_targets, free_sources):
        return alignment
    before = ancestors(network)
    for key in (_kind_and_signature, _signature):
        classes = _classes(free_targets, free_sources, key)
        for members, candidates in classes:
            if key is _kind_and_signature and len(members) != len(candidates):
                continue
            _align(members, candidates, before, ordered, alignment)
        placed = {id(layer) for pair in alignment.pairs for layer in (pair.target, pair.source)}
        placed |= {id(layer) for group in alignment.ambiguous for layer in (*group[0], *group[1])}
        free_targets = [layer for layer in free_targets if id(layer) not in placed]
        free_sources = [layer for layer in free_sources if id(layer) not in placed]
    alignment.pairs += _by_position(free_targets, free_sources, fits)
    return alignment


def ancestors(network: Mapping[str, Layer]) -> dict[str, frozenset[str]] | None:
    """For each layer all that run before it on a path to it; None where the paths are not known."""
    found: dict[str, frozenset[str]] = {}
    for name, layer in network.items():
        if layer.inputs is None:
            continue
        known = [giver for giver in layer.inputs if giver in found]
        found[name] = frozenset(known).union(*(found[giver] for giver in known))
    return found or None


def _kind_and_signature(layer: Layer) -> Any:
    return layer.kind, layer.signature


def _signature(layer: Layer) -> Any:
    return layer.signature


def _classes(
    targets: Sequence[Layer], sources: Sequence[Layer], key: Callable[[Layer], Any]
) -> list[tuple[list[Layer], list[Layer]]]:
    """Layers of both sides that have the same key, where both sides have some."""
    grouped: dict[Any, tuple[list[Layer], list[Layer]]] = {}
    for side, layers in enumerate((targets, sources)):
        for layer in layers:
            grouped.setdefault(key(layer), ([], []))[side].append(layer)
    return [(members, candidates) for members, candidates in grouped.values() if members and candidates]


def _plausible(targets: Sequence[Layer], sources: Sequence[Layer]) -> bool:
    """Whether nearly all that is left of one side has a counterpart of its shape on the other."""
    kernels = [layer for layer in targets if layer.kind != "norm"], [layer for layer in sources if layer.kind != "norm"]
    if not kernels[0] or not kernels[1]:
        return bool(targets and sources)
    shared = sum(min(len(members), len(found)) for members, found in _classes(*kernels, _signature))
    return shared >= _LEAST_SHARE * min(len(kernels[0]), len(kernels[1])) and shared >= 0.5 * len(kernels[1])


def _align(
    targets: list[Layer],
    sources: list[Layer],
    before: Mapping[str, frozenset[str]] | None,
    ordered: bool,
    alignment: Alignment,
) -> None:
    """One class of layers of equal shape."""
    if len(targets) == len(sources) == 1:
        alignment.pairs.append(Pair(targets[0], sources[0], "structure: the only layer of its shape"))
        return
    targets = sorted(targets, key=lambda layer: layer.order)
    in_order = sorted(sources, key=lambda layer: layer.order) if ordered else _by_creation_number(sources)
    if len(targets) != len(sources):
        _refuse(targets, sources, _COUNTS.format(len(sources), len(targets)), alignment)
        return
    if in_order is None or before is None:
        _refuse(targets, sources, _NO_ORDER, alignment)
        return
    start = 0
    for group in _groups(targets, before):
        candidates = in_order[start : start + len(group)]
        start += len(group)
        if len(group) == 1:
            rule = "structure: order of execution" if ordered else "structure: order of creation numbers"
            alignment.pairs.append(Pair(group[0], candidates[0], rule))
        else:
            _refuse(group, candidates, _PARALLEL, alignment)


def _groups(targets: Sequence[Layer], before: Mapping[str, frozenset[str]]) -> list[list[Layer]]:
    """Cut layers in order of execution wherever all of the first part run before all of the rest."""
    groups: list[list[Layer]] = [[]]
    for place, layer in enumerate(targets):
        groups[-1].append(layer)
        rest = targets[place + 1 :]
        if rest and all(one.name in before.get(later.name, ()) for one in groups[-1] for later in rest):
            groups.append([])
    return [group for group in groups if group]


def _refuse(targets: Sequence[Layer], sources: Sequence[Layer], why: str, alignment: Alignment) -> None:
    """Ambiguous, unless words of the names tell the layers apart after all."""
    pairs = _by_words(targets, sources)
    if pairs:
        alignment.pairs += pairs
    else:
        alignment.ambiguous.append((list(targets), list(sources), why))


def _by_words(targets: Sequence[Layer], sources: Sequence[Layer]) -> list[Pair]:
    """Pairs by words that one layer on each side has and no other: `left` and `left/c`. All, or none."""
    pairs = []
    target_words, source_words = [_words(layer) for layer in targets], [_words(layer) for layer in sources]
    for layer, words in zip(targets, target_words, strict=True):
        own = {word for word in words if sum(word in others for others in target_words) == 1}
        hits = [place for place, others in enumerate(source_words) if own & others]
        if len(hits) != 1:
            return []
        pairs.append(Pair(layer, sources[hits[0]], "structure: equal shapes told apart by their names"))
    return pairs if len({pair.source.name for pair in pairs}) == len(pairs) else []


def _words(layer: Layer) -> set[str]:
    return {word for word in re.split(r"[^a-z]+", layer.name.lower()) if len(word) > 1}


def _by_creation_number(sources: Sequence[Layer]) -> list[Layer] | None:
    """Layers called `conv2d`, `conv2d_1`, ... by their number; None where the names are not of that kind."""
    stems = {re.sub(r"_\d+$", "", layer.name) for layer in sources}
    if len(stems) != 1 or not re.search(r"(conv|batch_norm|dense|normalization)", next(iter(stems))):
        return None
    return sorted(sources, key=lambda layer: int((re.search(r"_(\d+)$", layer.name) or [0, 0])[1]))


def _by_position(targets: Sequence[Layer], sources: Sequence[Layer], fits: Fits) -> list[Pair]:
    """The one dense layer that is left on each side, where it fits in spite of another shape (a flatten)."""
    dense = [layer for layer in targets if layer.kind in ("conv", "dense")]
    given = [layer for layer in sources if layer.kind in ("conv", "dense")]
    if len(dense) == len(given) == 1 and fits(dense[0], given[0]):
        return [Pair(dense[0], given[0], "structure: the only layer left")]
    return []
