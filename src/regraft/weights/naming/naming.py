"""Rules that go by names: the same name, the names of a known family, the same name below another prefix.

Each rule gets the layers that are still free on both sides and returns pairs; where names collide it proposes nothing,
or says so.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from regraft.weights.naming.layers import Fits, Layer
from regraft.weights.naming.paths import dotted
from regraft.weights.naming.rules import Dialect, addresses, begins_late, families, shared_prefixes
from regraft.weights.naming.series import align

__all__ = ["Exchange", "Pair", "Side", "Spoken", "by_convolution", "by_family", "by_name", "by_suffix"]

# A family is believed when nearly all the layers that it brings together fit; a classifier may differ.
_LEAST_FIT = 0.9
_LEAST_PAIRS = 2
_MOST_CANDIDATES = 64
_NORMS = ("bn", "BN", "norm", "batchnorm", "batch_norm", "BatchNorm")


@dataclass(frozen=True)
class Pair:
    """A layer of the model, the layer of the file that fills it, and the rule that says so.

    Attributes:
        target: The layer of the model.
        source: The layer of the file.
        rule: The rule.
        scaled: False where the family is known to have normalisations without a scale.
        dialect: `family: dialect` of the file's names, where a family's table decided.
        address: The layer's address in that family.
        renumbered: Which numbers were exchanged for which, where they were.
        unbiased: Whether the family is known to have no bias in its classifier.
    """

    target: Layer
    source: Layer
    rule: str
    scaled: bool = True
    dialect: str = ""
    address: str = ""
    renumbered: str = ""
    unbiased: bool = False


@dataclass(frozen=True)
class Exchange:
    """Pairs by the exchange of one leading part; `is_tie` where another exchange explains as many of these layers."""

    pairs: list[Pair]
    is_tie: bool


def by_name(targets: Mapping[str, Layer], sources: Mapping[str, Layer], fits: Fits) -> list[Pair]:
    """Return layers with the same name on both sides, whatever their numbers start from."""
    aligned = align(_plain(targets), _plain(sources), fits)
    return [
        Pair(one.target, one.source, "exact name", renumbered=one.renumbered)
        for one in aligned
        if one.target.kind != "other" or one.source.kind != "other" or one.target.leaves.keys() & one.source.leaves
    ]


def _plain(layers: Mapping[str, Layer]) -> dict[str, Layer]:
    return {dotted(name).replace("#", "."): layer for name, layer in layers.items()}


@dataclass(frozen=True)
class Spoken:
    """Pairs by the tables of a family; `unplaced` are the addresses of layers of the file that the model lacks, `loose`
    pairs of single tensors, `begins` is a layer of the file's first block where blocks before it are absent, `is_same`
    whether the model's names are of the same dialect.
    """

    pairs: list[Pair]
    unplaced: Mapping[str, str]
    loose: Sequence[Pair] = ()
    begins: str = ""
    is_same: bool = False


@dataclass(frozen=True)
class Side:
    """Layers of one side, and its tensors that belong to none, as layers of their own."""

    layers: Mapping[str, Layer]
    loose: Mapping[str, Layer]

    @property
    def all(self) -> dict[str, Layer]:
        return {**self.loose, **self.layers}


def by_family(target: Side, source: Side, fits: Fits) -> Spoken:
    """Return layers with the same address in the best pair of dialects of one family."""
    best = Spoken([], {})
    best_fit = 0
    sources, targets = source.all, target.all
    for family in families():
        spoken = [(dialect, found) for dialect in family.dialects if (found := _model_addresses(target, dialect))]
        if not spoken:
            continue
        for prefix in shared_prefixes(list(source.layers)):
            for dialect in family.dialects:
                others = [one for one in spoken if not (dialect.own and one[0] is dialect)]
                named = addresses(sources, dialect, whole=False, prefix=prefix) if others else {}
                for target_dialect, target_named in others:
                    is_same = dialect is target_dialect
                    is_told = not (is_same and _only_numbers(target))
                    rule = f"family {family.name}: {dialect.name} -> {target_dialect.name}"
                    rule = rule if is_told else f"the same numbers below {prefix or '(nothing)'}"
                    name = f"{family.name}: {dialect.name}" if is_told else ""
                    meeting = [
                        Pair(targets[a], sources[b], rule, dialect.scaled, name, address, unbiased=dialect.unbiased)
                        for a, b, address in _same_address(target_named, named)
                    ]
                    pairs = [pair for pair in meeting if _is_of(pair, target, source)]
                    num_fit = _believable(pairs, fits)
                    if num_fit > best_fit:
                        placed = {pair.source.name for pair in meeting}
                        left = named if is_told else {}
                        unplaced = {name: address for name, address in left.items() if name not in placed}
                        best_fit = num_fit
                        loose = [pair for pair in meeting if _is_single(pair, target)]
                        begins = begins_late(sources, dialect, prefix=prefix) if is_told else ""
                        best = Spoken(pairs, unplaced, loose, begins, is_same)
    return best


def _only_numbers(side: Side) -> bool:
    """Return whether names are numbers alone, as in a nested `Sequential`: those of no network in particular."""
    return all(part.isdigit() for name in side.layers for part in dotted(name).split("."))


def _is_of(pair: Pair, target: Side, source: Side) -> bool:
    """Return whether both are layers, not single tensors."""
    return pair.target.name in target.layers and pair.source.name in source.layers


def _is_single(pair: Pair, target: Side) -> bool:
    return pair.target.name in target.loose and len(pair.source.tensors) == 1


def _model_addresses(target: Side, dialect: Dialect) -> dict[str, str]:
    """Return the model's addresses, if the dialect knows most of its layers."""
    found = addresses(target.all, dialect, whole=True)
    known = [name for name, layer in target.layers.items() if layer.kind != "other"]
    return found if known and sum(name in found for name in known) >= 0.8 * len(known) else {}


def _same_address(target_named: Mapping[str, str], named: Mapping[str, str]) -> list[tuple[str, str, str]]:
    at = {address: name for name, address in named.items()}
    return [(name, at[address], address) for name, address in target_named.items() if address in at]


def _believable(pairs: list[Pair], fits: Fits) -> int:
    num_fit = sum(fits(pair.target, pair.source) for pair in pairs)
    if num_fit < _LEAST_PAIRS or num_fit < _LEAST_FIT * len(pairs) - 1:
        return 0
    return num_fit


def by_convolution(
    pairs: Sequence[Pair],
    norm_behind: Mapping[str, Layer],
    targets: Mapping[str, Layer],
    sources: Mapping[str, Layer],
    fits: Fits,
) -> list[Pair]:
    """Pair normalisations named after a convolution that has its place: `conv1_bn`, `bn_conv1`.

    Args:
        pairs: What is placed.
        norm_behind: For each convolution of the model the normalisation that takes its output.
        targets: The model's free layers.
        sources: The file's free layers.
        fits: Whether two layers can be one.
    """
    found = []
    for pair in pairs:
        norm = norm_behind.get(pair.target.name)
        if norm is None or norm.name not in targets:
            continue
        head, sign, leaf = re.fullmatch(r"(.*?)([./]?)([^./]*)", pair.source.name).groups()  # type: ignore[union-attr]
        named = [name for name in _norm_names(leaf) if head + sign + name in sources]
        if len(named) == 1 and fits(norm, sources[head + sign + named[0]]):
            found.append(Pair(norm, sources[head + sign + named[0]], "named after its convolution"))
    return found


def _norm_names(convolution: str) -> list[str]:
    behind = [f"{convolution}{sign}{norm}" for sign in "_./" for norm in _NORMS]
    return [*behind, *(f"{norm}_{convolution}" for norm in _NORMS)]


def by_suffix(targets: Mapping[str, Layer], sources: Mapping[str, Layer], fits: Fits) -> Exchange | None:
    """Return layers with the same name once a leading part is taken off (or put on): `backbone.layer1.0` and
    `layer1.0`.

    Returns:
        The exchange of one leading part for another that explains the most layers, or None.
    """
    exchanges = {heads: pairs for heads, pairs in _exchanges(targets, sources, fits).items() if _telling(pairs)}
    if not exchanges:
        return None
    ranked = sorted(exchanges, key=lambda heads: -len(exchanges[heads]))
    heads, best = ranked[0], exchanges[ranked[0]]
    is_tie = any(len(exchanges[other]) == len(best) and _clash(best, exchanges[other]) for other in ranked[1:])
    here, there = _below(targets, heads[0]), _below(sources, heads[1])
    rule = f"suffix: {heads[1] or '(nothing)'}* -> {heads[0] or '(nothing)'}*"
    aligned = [one for one in align(here, there, fits) if fits(one.target, one.source)]
    pairs = [Pair(one.target, one.source, rule, renumbered=one.renumbered) for one in aligned]
    return Exchange(pairs, is_tie)


def _exchanges(
    targets: Mapping[str, Layer], sources: Mapping[str, Layer], fits: Fits
) -> dict[tuple[str, str], list[tuple[Layer, Layer]]]:
    """Return the possible exchanges of leading parts, by the longest common end of each layer's name.

    The work is linear in the number of layers.
    """
    by_tail: dict[str, list[Layer]] = {}
    for layer in sources.values():
        for tail in _tails(layer.name):
            by_tail.setdefault(tail, []).append(layer)
    found: dict[tuple[str, str], list[tuple[Layer, Layer]]] = {}
    for target in targets.values():
        for tail in _tails(target.name):
            candidates = by_tail.get(tail, ())
            if len(candidates) > _MOST_CANDIDATES:
                break  # `mlp.fc1` of every block says nothing
            fitting = [source for source in candidates if fits(target, source)]
            for source in fitting:
                heads = dotted(target.name)[: -len(tail)], dotted(source.name)[: -len(tail)]
                if any(heads):
                    found.setdefault(heads, []).append((target, source))
            if fitting:
                break
    return found


def _below(layers: Mapping[str, Layer], head: str) -> dict[str, Layer]:
    """Return layers under a leading part, by the rest of their names."""
    return {name[len(head) :]: layer for name, layer in _plain(layers).items() if name.startswith(head)}


def _tails(name: str) -> list[str]:
    parts = dotted(name).split(".")
    return [".".join(parts[start:]) for start in range(len(parts))]


def _telling(pairs: Sequence[tuple[Layer, Layer]]) -> bool:
    """Return whether an exchange is well founded: on more than one layer, and on a name that is not a mere number."""
    tails = {target.name.rpartition(".")[2] for target, _ in pairs}
    return len(pairs) >= _LEAST_PAIRS and not all(tail.isdigit() for tail in tails)


def _clash(first: Sequence[tuple[Layer, Layer]], second: Sequence[tuple[Layer, Layer]]) -> bool:
    targets, sources = {target.name for target, _ in first}, {source.name for _, source in first}
    return any(target.name in targets or source.name in sources for target, source in second)
