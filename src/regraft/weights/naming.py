"""Rules that go by names: the same name, the names of a known family, the same name below another prefix.

Each rule gets the layers that are still free on both sides and returns pairs; it proposes nothing where names collide.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from regraft.weights.layers import Layer
from regraft.weights.rules import Dialect, addresses, families, shared_prefixes

__all__ = ["Fits", "Pair", "by_family", "by_name", "by_suffix"]

# A family is believed when nearly all the layers that it brings together fit; a classifier may differ.
_LEAST_FIT = 0.9
_LEAST_PAIRS = 2

Fits = Callable[[Layer, Layer], bool]


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
    """

    target: Layer
    source: Layer
    rule: str
    scaled: bool = True
    dialect: str = ""
    address: str = ""


def by_name(targets: Mapping[str, Layer], sources: Mapping[str, Layer]) -> list[Pair]:
    """Layers with the same name on both sides."""
    plain = {name.replace("/", ".").replace("#", "."): layer for name, layer in sources.items()}
    return [Pair(layer, plain[name], "exact name") for name, layer in targets.items() if name in plain]


def by_family(targets: Mapping[str, Layer], sources: Mapping[str, Layer], fits: Fits) -> list[Pair]:
    """Layers with the same address in the best pair of dialects of one family."""
    best: list[Pair] = []
    best_fit = 0
    for family in families():
        spoken = [(dialect, found) for dialect in family.dialects if (found := _model_addresses(targets, dialect))]
        if not spoken:
            continue
        for prefix in shared_prefixes(list(sources)):
            for dialect in family.dialects:
                named = addresses(sources, dialect, whole=False, prefix=prefix)
                for target_dialect, target_named in spoken:
                    rule = f"family {family.name}: {dialect.name} -> {target_dialect.name}"
                    pairs = [
                        Pair(targets[a], sources[b], rule, dialect.scaled, f"{family.name}: {dialect.name}", address)
                        for a, b, address in _same_address(target_named, named)
                    ]
                    num_fit = _believable(pairs, fits)
                    if num_fit > best_fit:
                        best, best_fit = pairs, num_fit
    return best


def _model_addresses(targets: Mapping[str, Layer], dialect: Dialect) -> dict[str, str]:
    """The model's addresses, if the dialect knows most of its layers."""
    found = addresses(targets, dialect, whole=True)
    return found if len(found) >= 0.8 * len(targets) else {}


def _same_address(target_named: Mapping[str, str], named: Mapping[str, str]) -> list[tuple[str, str, str]]:
    at = {address: name for name, address in named.items()}
    return [(name, at[address], address) for name, address in target_named.items() if address in at]


def _believable(pairs: list[Pair], fits: Fits) -> int:
    num_fit = sum(fits(pair.target, pair.source) for pair in pairs)
    if num_fit < _LEAST_PAIRS or num_fit < _LEAST_FIT * len(pairs) - 1:
        return 0
    return num_fit


def by_suffix(targets: Mapping[str, Layer], sources: Mapping[str, Layer], fits: Fits) -> list[Pair]:
    """Layers with the same name once a leading part is taken off (or put on): `backbone.layer1.0` and `layer1.0`."""
    pairs: list[Pair] = []
    free_targets, free_sources = dict(targets), dict(sources)
    while True:
        found = _best_prefix(free_targets, free_sources, fits)
        if not found:
            return pairs
        pairs += found
        for pair in found:
            free_targets.pop(pair.target.name, None)
            free_sources.pop(pair.source.name, None)


def _best_prefix(targets: Mapping[str, Layer], sources: Mapping[str, Layer], fits: Fits) -> list[Pair]:
    """The exchange of one leading part for another that explains the most layers, if exactly one explains so many."""
    exchanges: dict[tuple[str, str], list[Pair]] = {}
    by_tail: dict[str, list[Layer]] = {}
    for layer in sources.values():
        for tail in _tails(layer.name):
            by_tail.setdefault(tail, []).append(layer)
    for target in targets.values():
        for tail in _tails(target.name):
            for source in by_tail.get(tail, ()):
                heads = target.name[: -len(tail)], source.name[: -len(tail)]
                if _longest(*heads) and fits(target, source):
                    rule = f"suffix: {heads[1] or '(nothing)'}* -> {heads[0] or '(nothing)'}*"
                    exchanges.setdefault(heads, []).append(Pair(target, source, rule))
    ranked = sorted((pairs for pairs in exchanges.values() if _telling(pairs)), key=len, reverse=True)
    if not ranked or (len(ranked) > 1 and len(ranked[0]) == len(ranked[1]) and _clash(ranked[0], ranked[1])):
        return []
    return ranked[0]


def _tails(name: str) -> list[str]:
    parts = name.replace("/", ".").split(".")
    return [".".join(parts[start:]) for start in range(len(parts))]


def _longest(first: str, second: str) -> bool:
    """Whether two heads end differently, so that the tail behind them is as long as it can be."""
    return first.split(".")[-2:-1] != second.replace("/", ".").split(".")[-2:-1] or not first or not second


def _telling(pairs: list[Pair]) -> bool:
    """More than one layer, or a name that is no mere number."""
    tails = {pair.target.name.rpartition(".")[2] for pair in pairs}
    return len(pairs) >= _LEAST_PAIRS and not all(tail.isdigit() for tail in tails)


def _clash(first: list[Pair], second: list[Pair]) -> bool:
    targets, sources = {p.target.name for p in first}, {p.source.name for p in first}
    return any(p.target.name in targets or p.source.name in sources for p in second)
