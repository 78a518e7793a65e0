"""The last rule: layers of equal shape, aligned by the order of execution, refusing where two assignments are possible.

Two layers of one shape can be told apart by order only if one of them always runs before the other, and only if the
file's order means anything. Parallel branches never can; what they would need is said in the report. The order of a
PyTorch file is that of definition: it counts where the layers' own numbers agree with it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

from regraft.weights.naming.layers import Fits, Layer
from regraft.weights.naming.naming import Pair
from regraft.weights.report import Finding
from regraft.wording import quantity

__all__ = ["Alignment", "Order", "by_structure"]

Order = Literal["execution", "definition", "none"]

# Below this share of layers that could be placed, equal shapes are a coincidence and nothing is placed at all.
_LEAST_SHARE = 0.8
_DECIDES = "names, the file's own graph (a full model instead of weights alone), or --map would decide"
_PARALLEL = f"they run in parallel branches; {_DECIDES}"
_NO_ORDER = f"the order in the file does not distinguish them; {_DECIDES}"
_DEFINITION = (
    "only the order in the file distinguishes them, which is the order of definition, not of execution, and no numbers "
    "in their names confirm it; --check image=logits settles it, --in-order takes the order as it is, --map names pairs"
)
_BY_ORDER = "structure: order of execution"
_COUNTS = f"the file has {{}} layers of this shape and the model {{}}; {_DECIDES}"


@dataclass
class Alignment:
    """What structure decides, and what it cannot: (targets, sources, what would decide)."""

    pairs: list[Pair] = field(default_factory=list)
    ambiguous: list[tuple[list[Layer], list[Layer], str]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


def by_structure(
    targets: Mapping[str, Layer],
    sources: Mapping[str, Layer],
    network: Mapping[str, Layer],
    fits: Fits,
    *,
    order: Order,
    settled: Sequence[Pair] = (),
) -> Alignment:
    """Align the layers that no other rule has placed.

    Args:
        targets: The model's free layers.
        sources: The file's free layers, in its order.
        network: All the model's layers, for what runs before what.
        fits: Whether two layers can be one.
        order: What the file's order is.
        settled: What other rules have placed.
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
            _align(members, candidates, before, order != "none", alignment)
        placed = {id(layer) for pair in alignment.pairs for layer in (pair.target, pair.source)}
        placed |= {id(layer) for group in alignment.ambiguous for layer in (*group[0], *group[1])}
        free_targets = [layer for layer in free_targets if id(layer) not in placed]
        free_sources = [layer for layer in free_sources if id(layer) not in placed]
    alignment.pairs += _by_position(free_targets, free_sources, fits)
    if order == "definition":
        _doubt(alignment, settled, sources)
    num_ordered = sum(pair.rule == _BY_ORDER for pair in alignment.pairs)
    if num_ordered:
        text = (
            f"{quantity(num_ordered, 'layer was', 'layers were')} placed by the order of the file's layers of one "
            "shape; a reference output "
            "(--check image=logits) settles whether it is that of execution"
        )
        alignment.findings.append(Finding("order", "", text))
    return alignment


def _doubt(alignment: Alignment, settled: Sequence[Pair], sources: Mapping[str, Layer]) -> None:
    """Leave open what an order of definition alone has placed.

    A class of equal shapes stands where the numbers of its names rise in this order; a normalisation right behind a
    convolution, on both sides, goes where the convolution goes.
    """
    in_file = sorted(sources.values(), key=lambda layer: layer.order)
    before = {layer.name: giver.name for giver, layer in pairwise(in_file)}
    certain = {pair.target.name: pair.source.name for pair in (*settled, *alignment.pairs) if pair.rule != _BY_ORDER}
    classes: dict[Any, list[Pair]] = {}
    for pair in alignment.pairs:
        if pair.rule == _BY_ORDER:
            classes.setdefault(_kind_and_signature(pair.target), []).append(pair)
    waiting = list(classes.values())
    while confirmed := [members for members in waiting if _is_confirmed(members, certain, before)]:
        certain |= {pair.target.name: pair.source.name for members in confirmed for pair in members}
        waiting = [members for members in waiting if members not in confirmed]
    for members in waiting:
        alignment.pairs = [pair for pair in alignment.pairs if pair not in members]
        alignment.ambiguous.append(([pair.target for pair in members], [pair.source for pair in members], _DEFINITION))


def _is_confirmed(members: Sequence[Pair], certain: Mapping[str, str], before: Mapping[str, str]) -> bool:
    """Return whether something beside the order says that these layers of one shape are rightly placed."""
    rest = [
        pair.source
        for pair in members
        if not (
            pair.target.kind == "norm"
            and pair.target.inputs is not None
            and len(pair.target.inputs) == 1
            and certain.get(pair.target.inputs[0], "") == before.get(pair.source.name)
        )
    ]
    return all(_counts_on(first.name, second.name) for first, second in pairwise(rest))


def _counts_on(first: str, second: str) -> bool:
    """Return whether the first difference between two names is a number, or a single letter, that rises."""
    left, right = re.findall(r"\d+|[^\d./_-]+", first), re.findall(r"\d+|[^\d./_-]+", second)
    for one, other in zip(left, right, strict=False):
        if one != other:
            if one.isdecimal() and other.isdecimal():
                return int(one) < int(other)
            return len(one) == len(other) == 1 and one.isalpha() and other.isalpha() and one < other
    return False


def ancestors(network: Mapping[str, Layer]) -> dict[str, frozenset[str]] | None:
    """Return for each layer all that run before it on a path to it; None where the paths are not known."""
    found: dict[str, frozenset[str]] = {}
    for name, layer in network.items():
        if layer.inputs is None:
            continue
        known = [giver for giver in layer.inputs if giver in found]
        found[name] = frozenset(known).union(*(found[giver] for giver in known))
    return found or None


def _kind_and_signature(layer: Layer) -> Any:
    return "channelwise" if layer.is_channelwise else layer.kind, layer.signature


def _signature(layer: Layer) -> Any:
    return layer.signature


def _classes(
    targets: Sequence[Layer], sources: Sequence[Layer], key: Callable[[Layer], Any]
) -> list[tuple[list[Layer], list[Layer]]]:
    """Return layers of both sides that have the same key, where both sides have some."""
    grouped: dict[Any, tuple[list[Layer], list[Layer]]] = {}
    for side, layers in enumerate((targets, sources)):
        for layer in layers:
            grouped.setdefault(key(layer), ([], []))[side].append(layer)
    return [(members, candidates) for members, candidates in grouped.values() if members and candidates]


def _plausible(targets: Sequence[Layer], sources: Sequence[Layer]) -> bool:
    """Return whether nearly all that is left of one side has a counterpart of its shape on the other."""
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
    """Pair one class of layers of equal shape."""
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
            rule = _BY_ORDER if ordered else "structure: order of creation numbers"
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
    """Note a class of layers as ambiguous, unless words of the names tell the layers apart after all."""
    pairs = _by_words(targets, sources)
    if pairs:
        alignment.pairs += pairs
    else:
        alignment.ambiguous.append((list(targets), list(sources), why))


def _by_words(targets: Sequence[Layer], sources: Sequence[Layer]) -> list[Pair]:
    """Return pairs by words that one layer on each side has and no other: `left` and `left/c`. All, or none."""
    pairs = []
    target_words, source_words = [_words(layer) for layer in targets], [_words(layer) for layer in sources]
    for layer, words in zip(targets, target_words, strict=True):
        own = {word for word in words if sum(word in others for others in target_words) == 1}
        hits = [place for place, others in enumerate(source_words) if own & others]
        if len(hits) != 1:
            return []
        pairs.append(Pair(layer, sources[hits[0]], "structure: equal shapes distinguished by name"))
    return pairs if len({pair.source.name for pair in pairs}) == len(pairs) else []


def _words(layer: Layer) -> set[str]:
    return {word for word in re.split(r"[^a-z]+", layer.name.lower()) if len(word) > 1}


def _by_creation_number(sources: Sequence[Layer]) -> list[Layer] | None:
    """Return layers called `conv2d`, `conv2d_1`, ... by their number; None where the names are not of that kind."""
    stems = {re.sub(r"_\d+$", "", layer.name) for layer in sources}
    if len(stems) != 1 or not re.search(r"(conv|batch_norm|dense|normalization)", next(iter(stems))):
        return None
    return sorted(sources, key=lambda layer: int((re.search(r"_(\d+)$", layer.name) or [0, 0])[1]))


def _by_position(targets: Sequence[Layer], sources: Sequence[Layer], fits: Fits) -> list[Pair]:
    """Return the one dense layer that is left on each side, where it fits in spite of another shape (a flatten)."""
    dense = [layer for layer in targets if layer.kind in ("conv", "dense")]
    given = [layer for layer in sources if layer.kind in ("conv", "dense")]
    if len(dense) == len(given) == 1 and fits(dense[0], given[0]):
        return [Pair(dense[0], given[0], "structure: the only layer left")]
    return []
