"""The account of a match: every tensor of both sides in exactly one place."""

from __future__ import annotations

from collections.abc import Sequence

from regraft.weights.differences.extra_layers import extra_layers
from regraft.weights.differences.own_input import own_input
from regraft.weights.file import SourceTensor, WeightFile
from regraft.weights.match.bind import Bound
from regraft.weights.match.skipping import Skip
from regraft.weights.match.state import State
from regraft.weights.naming.layers import Slot
from regraft.weights.report import Ambiguity, Finding, Match, MatchReport

__all__ = ["account"]


def account(
    weights: WeightFile, slots: Sequence[Slot], state: State, bound: Bound, skip: Skip, model: str
) -> MatchReport:
    """Return every tensor of both sides in exactly one place."""
    matched = [
        bound.matches[slot.name]
        for slot in slots
        if slot.name in bound.matches and not _is_skipped(bound.matches[slot.name], skip)
    ]
    done = {match.target for match in matched} | skip.targets
    done |= {match.target for match in bound.matches.values() if _is_skipped(match, skip)}
    done |= skip.left_out
    dropped_targets = sorted(done - {match.target for match in matched}, key=_order_of(slots).__getitem__)
    wrong = [pair for pair in bound.wrong if pair.target not in done and pair.source not in skip.sources]
    ambiguous = _ambiguities(state, done | {pair.target for pair in wrong}, skip)
    left_out = done | {pair.target for pair in wrong} | {name for group in ambiguous for name in group.targets}
    used = {source.name for match in matched for source in match.sources}
    used |= {pair.source for pair in wrong} | {name for group in ambiguous for name in group.sources}
    dropped = [tensor.name for tensor in weights if tensor.name in skip.sources and tensor.name not in used]
    unexpected = [t for t in weights if t.name not in used and t.name not in skip.sources]
    extra = _extra(weights, slots, state, bound, unexpected, skip)
    return MatchReport(
        file=weights.path,
        format=weights.format,
        producer=weights.producer,
        model=model,
        matched=tuple(matched),
        missing=tuple(slot.name for slot in slots if slot.name not in left_out),
        unexpected=tuple(tensor.name for tensor in unexpected),
        wrong_shape=tuple(wrong),
        ambiguous=tuple(ambiguous),
        dropped=tuple(dropped),
        dropped_targets=tuple(dropped_targets),
        parts={slot.name: slot.part for slot in slots},
        findings=tuple(sorted(state.findings + bound.findings + extra, key=lambda finding: not finding.serious)),
        notes=weights.notes,
    )


def _extra(
    weights: WeightFile,
    slots: Sequence[Slot],
    state: State,
    bound: Bound,
    unexpected: Sequence[SourceTensor],
    skip: Skip,
) -> list[Finding]:
    """Return layers of the file inside what was matched, without those whose place in the model was skipped."""
    given_up = {source.name for match in bound.matches.values() if _is_skipped(match, skip) for source in match.sources}
    lost = [tensor for tensor in unexpected if tensor.name not in given_up]
    extra = extra_layers(
        state.pairs,
        lost,
        state.sources,
        {slot.layer: slot.part for slot in slots},
        state.unplaced,
        ordered=weights.ordered,
    )
    return [*extra, *own_input(weights, lost, state.sources)]


def _is_skipped(match: Match, skip: Skip) -> bool:
    return match.target in skip.targets or any(source.name in skip.sources for source in match.sources)


def _order_of(slots: Sequence[Slot]) -> dict[str, int]:
    return {slot.name: place for place, slot in enumerate(slots)}


def _ambiguities(state: State, settled: set[str], skip: Skip) -> list[Ambiguity]:
    groups = []
    for group in state.ambiguous:
        names = [slot.name for layer in group.targets for slot in layer.tensors.values() if slot.name not in settled]
        tensors = [tensor.name for layer in group.sources for tensor in layer.tensors.values()]
        open_sources = tuple(name for name in tensors if name not in skip.sources)
        if names:
            groups.append(Ambiguity(tuple(names), open_sources, group.decides, group.prefixes))
    return groups
