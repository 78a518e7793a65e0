"""The same names in another spelling: underscores for dots (torch.fx), one numbered trunk cut into several parts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from regraft.weights.naming.layers import Fits, Layer
from regraft.weights.naming.naming import Pair
from regraft.weights.naming.paths import counted, dotted

__all__ = ["by_parts", "by_underscores"]

_LEAST_SHARE = 0.9  # of the model's layers that are free, kernels and normalisations
_NUM_ANCHORS = 32
_LEAST = 4


def by_underscores(targets: Mapping[str, Layer], sources: Mapping[str, Layer], fits: Fits) -> list[Pair]:
    """Return layers whose names are the same once dots are underscores, below one prefix; nearly all, or none."""
    wanted = _flat({name: layer for name, layer in targets.items() if layer.kind != "other"})
    given = _flat(sources)
    prefixes: Counter[str] = Counter()
    for tail in list(wanted)[:: max(1, len(wanted) // _NUM_ANCHORS)]:
        prefixes.update({name[: -len(tail)] for name in given if name.endswith(tail)})
    ranked = prefixes.most_common(2)
    if not ranked or (len(ranked) == 2 and ranked[0][1] == ranked[1][1]):
        return []
    prefix = ranked[0][0]
    found = [(layer, given[prefix + name]) for name, layer in wanted.items() if prefix + name in given]
    if len(found) < max(_LEAST, _LEAST_SHARE * len(wanted)) or not all(fits(one, other) for one, other in found):
        return []
    return [Pair(one, other, "underscores for dots") for one, other in found]


def _flat(layers: Mapping[str, Layer]) -> dict[str, Layer]:
    """Return layers by their names with underscores alone; what two layers would be called is left out."""
    names = [(dotted(name).replace(".", "_"), layer) for name, layer in layers.items()]
    counts = Counter(name for name, _ in names)
    return {name: layer for name, layer in names if counts[name] == 1}


def by_parts(targets: Mapping[str, Layer], sources: Mapping[str, Layer], fits: Fits) -> list[Pair]:
    """Return the layers of a numbered trunk that stands under several numbered prefixes, its numbers running on
    (`slice1.0 ... slice4.30` for `features.0 ... features.30`); where all of them fit one trunk of the model.
    """
    found = [
        pairs
        for path, trunk in _trunks(sources).items()
        for series in _series(targets).values()
        if (pairs := _together(path, series, trunk, fits))
    ]
    return found[0] if len(found) == 1 else []


def _together(path: str, series: Mapping[int, Layer], trunk: Mapping[int, Layer], fits: Fits) -> list[Pair]:
    kept = {number: layer for number, layer in trunk.items() if number in series}
    if len(kept) < max(_LEAST, len(trunk)) or not all(fits(series[number], layer) for number, layer in kept.items()):
        return []
    return [Pair(series[number], layer, f"one trunk in parts: {path}#.*") for number, layer in kept.items()]


def _series(layers: Mapping[str, Layer]) -> dict[str, dict[int, Layer]]:
    """Return layers whose names end in a number, by the path above and that number."""
    found: dict[str, dict[int, Layer]] = {}
    for name, layer in layers.items():
        path, _, last = dotted(name).rpartition(".")
        if last.isdecimal() and layer.kind != "other":
            found.setdefault(path, {})[int(last)] = layer
    return found


def _trunks(sources: Mapping[str, Layer]) -> dict[str, dict[int, Layer]]:
    """Return the layers under numbered prefixes by their own numbers, as long as these run on from prefix to prefix."""
    parts: dict[str, dict[int, dict[int, Layer]]] = {}
    for path, series in _series(sources).items():
        above, sign, last = path.rpartition(".")
        if (count := counted(last)) is not None:
            parts.setdefault(f"{above}{sign}{count[0]}", {})[count[1]] = series
    trunks: dict[str, dict[int, Layer]] = {}
    for stem, numbered in parts.items():
        trunk: dict[int, Layer] = {}
        for number in sorted(numbered):
            if not trunk or min(numbered[number]) > max(trunk):
                trunk |= numbered[number]
        if len(numbered) > 1:
            trunks[stem] = trunk
    return trunks
