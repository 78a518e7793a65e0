"""The last rule: layers of equal shape, aligned by the order of execution, refusing where two assignments are possible.

Two layers of one shape can be told apart by order only if one of them always runs before the other, and only if the
file's order means anything (see `evidence`). Parallel branches never can; what they would need is said in the report.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from regraft.weights.match.structure.branch import own_branch
from regraft.weights.match.structure.evidence import (
    BEHIND,
    against_creation,
    behind_convolutions,
    by_creation_number,
    by_numbers,
    unconfirmed,
    upwards_only,
)
from regraft.weights.match.structure.paths import Paths
from regraft.weights.naming.layers import Fits, Layer
from regraft.weights.naming.naming import Pair
from regraft.weights.report import Finding
from regraft.wording import quantity

__all__ = ["Alignment", "Order", "by_structure"]

# `numbers`: the file has no order, and that of the numbers in its names is taken on request.
Order = Literal["execution", "definition", "numbers", "none"]

# Below this share of layers that could be placed, equal shapes are a coincidence and nothing is placed at all.
_LEAST_SHARE = 0.8
_LEAST_NETWORK = 4  # kernels; fewer are the rest of a network that names have placed
_DECIDES = "names, the file's own graph (a full model instead of weights alone), or --map would decide"
_PARALLEL = f"they run in parallel branches; {_DECIDES}"
_NO_ORDER = f"the order in the file does not distinguish them; {_DECIDES}"
_SETTLES = "--check image=logits settles it, --in-order takes the order as it is, --map names pairs"
_DEFINITION = (
    "only the order in the file distinguishes them, which is the order of definition, not of execution, and neither "
    f"numbers in their names nor layers between them confirm it; {_SETTLES}"
)
_NUMBERS = (
    f"only the numbers in their names distinguish them, which may count the layers upwards or downwards; {_SETTLES}"
)
_BY_ORDER = "structure: order of execution"
_BY_NUMBERS = "structure: order of numbers"
_BY_CREATION = "structure: order of creation numbers"
_ORDERED = (_BY_ORDER, _BY_NUMBERS, _BY_CREATION)
_COUNTS = f"the file has {{}} layers of this shape and the model {{}}; {_DECIDES}"


@dataclass
class Alignment:
    """What structure decides, and what it cannot: (targets, sources, what would decide)."""

    pairs: list[Pair] = field(default_factory=list)
    ambiguous: list[tuple[list[Layer], list[Layer], str]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    @property
    def done(self) -> set[int]:
        """The ids of all layers that are paired or ambiguous."""
        placed = {id(layer) for pair in self.pairs for layer in (pair.target, pair.source)}
        return placed | {id(layer) for group in self.ambiguous for layer in (*group[0], *group[1])}

    def reopen(self, groups: Sequence[Sequence[Pair]], why: str) -> None:
        """Take pairs back, and note them as ambiguous."""
        gone = {id(pair) for members in groups for pair in members}
        self.pairs = [pair for pair in self.pairs if id(pair) not in gone]
        self.ambiguous += [([p.target for p in members], [p.source for p in members], why) for members in groups]


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
    ordered = order in ("execution", "definition")
    free_sources = own_branch(free_targets, free_sources, ordered=ordered)
    paths = Paths(network)
    layers = {layer.name: layer for layer in free_sources}
    for kind in ("kernel", "norm"):  # normalisations go where the convolutions before them have gone
        certain = [*settled, *alignment.pairs]
        own, theirs = ([one for one in side if _part(one) == kind] for side in (free_targets, free_sources))
        if kind == "norm":
            alignment.pairs += behind_convolutions(own, certain, layers, ordered=ordered)
        left = _place(own, theirs, paths, ordered, alignment)
        if kind == "kernel":
            alignment.pairs += _by_position(*left, fits)
        _doubt(alignment, kind, certain, paths, order)
    num_ordered = sum(pair.rule in (*_ORDERED, BEHIND) for pair in alignment.pairs)
    if num_ordered:
        text = (
            f"{quantity(num_ordered, 'layer was', 'layers were')} placed by the order of the file's layers, or of the "
            "numbers in their names: nothing else tells them apart from others of their shape; a reference output "
            "(--check image=logits) settles whether it is that of execution"
        )
        alignment.findings.append(Finding("order", "", text))
    return alignment


def _place(
    targets: list[Layer],
    sources: list[Layer],
    paths: Paths,
    ordered: bool,
    alignment: Alignment,
) -> tuple[list[Layer], list[Layer]]:
    """Pair layers of one shape, and return those of both sides that are left."""
    for key in (_kind_and_signature, _signature):
        done = alignment.done
        targets, sources = ([one for one in side if id(one) not in done] for side in (targets, sources))
        for members, candidates in _classes(targets, sources, key):
            if key is _signature or len(members) == len(candidates):
                _align(members, candidates, paths, ordered, alignment)
    done = alignment.done
    return [one for one in targets if id(one) not in done], [one for one in sources if id(one) not in done]


def _doubt(alignment: Alignment, kind: str, certain: Sequence[Pair], paths: Paths, order: Order) -> None:
    """Leave open what an order of definition, or numbers that may count downwards, have placed alone."""
    new = [pair for pair in alignment.pairs if _part(pair.target) == kind]
    doubtful = [pair for pair in new if pair.rule in (_BY_ORDER, _BY_NUMBERS)]
    created = [pair for pair in new if pair.rule == _BY_CREATION]
    certain = [*certain, *(pair for pair in new if pair.rule not in _ORDERED)]
    if created:
        alignment.reopen(against_creation(created, certain, paths), _NUMBERS)
    if order == "definition" and doubtful:
        alignment.reopen(unconfirmed(doubtful, certain, paths), _DEFINITION)
    if order == "none" and doubtful:
        alignment.reopen(upwards_only(doubtful, certain), _NUMBERS)


def _part(layer: Layer) -> str:
    return "norm" if layer.kind == "norm" else "kernel"


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
    """Return whether nearly all that is left of one side has a counterpart of its shape on the other.

    What else a file holds beside a whole network (a projector, a decoder) says nothing against it.
    """
    kernels = [layer for layer in targets if layer.kind != "norm"], [layer for layer in sources if layer.kind != "norm"]
    if not kernels[0] or not kernels[1]:
        return bool(targets and sources)
    shared = sum(min(len(members), len(found)) for members, found in _classes(*kernels, _signature))
    if len(kernels[0]) >= _LEAST_NETWORK and shared >= _LEAST_SHARE * len(kernels[0]):
        return True
    return shared >= _LEAST_SHARE * min(len(kernels[0]), len(kernels[1])) and shared >= 0.5 * len(kernels[1])


def _align(
    targets: list[Layer],
    sources: list[Layer],
    paths: Paths,
    ordered: bool,
    alignment: Alignment,
) -> None:
    """Pair one class of layers of equal shape."""
    if len(targets) == len(sources) == 1:
        alignment.pairs.append(Pair(targets[0], sources[0], "structure: the only layer of its shape"))
        return
    targets = sorted(targets, key=lambda layer: layer.order)
    in_order, rule = _in_order(sources, ordered=ordered)
    if len(targets) != len(sources):
        _refuse(targets, sources, _COUNTS.format(len(sources), len(targets)), alignment)
        return
    if in_order is None or not paths.are_known:
        _refuse(targets, sources, _NO_ORDER, alignment)
        return
    start = 0
    for group in paths.cut(targets):
        candidates = in_order[start : start + len(group)]
        start += len(group)
        if len(group) == 1:
            alignment.pairs.append(Pair(group[0], candidates[0], rule))
        else:
            _refuse(group, candidates, _PARALLEL, alignment)


def _in_order(sources: Sequence[Layer], *, ordered: bool) -> tuple[list[Layer] | None, str]:
    """Return layers in the file's order, or else in that of their numbers, and the rule that it is."""
    if ordered:
        return sorted(sources, key=lambda layer: layer.order), _BY_ORDER
    created = by_creation_number(sources)
    return (created, _BY_CREATION) if created else (by_numbers(sources), _BY_NUMBERS)


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


def _by_position(targets: Sequence[Layer], sources: Sequence[Layer], fits: Fits) -> list[Pair]:
    """Return the one dense layer that is left on each side, where it fits in spite of another shape (a flatten)."""
    dense = [layer for layer in targets if layer.kind in ("conv", "dense")]
    given = [layer for layer in sources if layer.kind in ("conv", "dense")]
    if len(dense) == len(given) == 1 and fits(dense[0], given[0]):
        return [Pair(dense[0], given[0], "structure: the only layer left")]
    return []
