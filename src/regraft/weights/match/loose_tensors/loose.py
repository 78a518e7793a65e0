"""Tensors of no layer kind that regraft knows (class tokens, layer scales, bias tables): by their names alone.

Where the layers around them were matched under another prefix or another number, they go the same way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from regraft.weights.file import SourceTensor, WeightFile
from regraft.weights.match.bind import Bound
from regraft.weights.match.fit import Fitter
from regraft.weights.match.loose_tensors.positions import place_positions
from regraft.weights.match.state import State
from regraft.weights.naming.layers import Slot
from regraft.weights.naming.naming import Pair
from regraft.weights.naming.paths import dotted
from regraft.weights.report import Match, WrongShape

__all__ = ["bind_loose"]

_CLEARLY = 10  # how often one exchange of paths must be seen for each time that another one is


def bind_loose(weights: WeightFile, slots: Sequence[Slot], state: State, fitter: Fitter, bound: Bound) -> None:
    """Match what no pair of layers has filled, by whole names and by the paths that the pairs exchange.

    What rules have left open between layers stays open: kernels and normalisations are never loose.
    """
    used = {source.name for match in bound.matches.values() for source in match.sources}
    used |= {tensor.name for group in state.ambiguous for layer in group.sources for tensor in layer.tensors.values()}
    closed = {pair.target for pair in bound.wrong} | set(bound.matches)
    closed |= {slot.name for group in state.ambiguous for layer in group.targets for slot in layer.tensors.values()}
    by_name = {dotted(name): tensor for name, tensor in weights.tensors.items()}
    filled = {pair.target.name for pair in state.pairs}
    filled |= {layer.name for layer in state.targets.values() if layer.kind == "other"}
    exchanged = _exchanged(state.pairs)
    for slot in slots:
        if slot.name in closed or (slot.role != "other" and slot.layer not in filled):
            continue
        found = _of_family(slot, state, used) or _counterpart(slot, by_name, exchanged, used)
        if found is None:
            continue
        tensor, rule = found
        steps = fitter.steps(slot, tensor)
        if steps is None and place_positions(slot, tensor, slots, bound):
            used.add(tensor.name)
        elif steps is None:
            bound.wrong.append(WrongShape(slot.name, tensor.name, slot.shape, tensor.shape))
        else:
            bound.matches[slot.name] = Match(slot.name, (tensor,), rule, steps)
            used.add(tensor.name)


def _of_family(slot: Slot, state: State, used: set[str]) -> tuple[SourceTensor, str] | None:
    """Return the tensor of the file that has this one's address in the tables of the family."""
    pair = state.loose.get(slot.name)
    tensor = next(iter(pair.source.tensors.values())) if pair is not None else None
    return None if pair is None or tensor is None or tensor.name in used else (tensor, pair.rule)


def _counterpart(
    slot: Slot, by_name: Mapping[str, SourceTensor], exchanged: Mapping[str, Counter[str]], used: set[str]
) -> tuple[SourceTensor, str] | None:
    """Return the tensor of the file, and the rule that found it: the nearest exchanged path above the slot decides."""
    for path in _paths(slot.name.rpartition(".")[0]):
        if path not in exchanged:
            continue
        rest = slot.name[len(path) :].lstrip(".")
        ranked = [
            (count, by_name[name], head)
            for head, count in exchanged[path].most_common()
            if (name := f"{head}.{rest}" if head else rest) in by_name and by_name[name].name not in used
        ]
        if ranked and (len(ranked) == 1 or ranked[0][0] >= _CLEARLY * ranked[1][0]):
            _, near, head = ranked[0]
            return near, "exact name" if head == path else f"with its neighbours: {head}.* -> {path or '(nothing)'}.*"
        if ranked:
            return None
    tensor = by_name.get(slot.name)
    return (tensor, "exact name") if tensor is not None and tensor.name not in used else None


def _exchanged(pairs: Sequence[Pair]) -> dict[str, Counter[str]]:
    """Return the paths of the file that stand for each path of the model, with the number of pairs that say so."""
    found: dict[str, Counter[str]] = {}
    for pair in pairs:
        target, source = pair.target.name.split("."), dotted(pair.source.name).split(".")
        found.setdefault(pair.target.name, Counter())[".".join(source)] += 1
        for length in range(1, min(len(target), len(source)) + 1):
            if target[-length] != source[-length]:
                break
            found.setdefault(".".join(target[:-length]), Counter())[".".join(source[:-length])] += 1
    return found


def _paths(path: str) -> Iterator[str]:
    """Yield a path, and all above it."""
    while path:
        yield path
        path = path.rpartition(".")[0]
    yield ""
