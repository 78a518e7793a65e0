"""Which tensor of a file goes where in a model: the rules in their order, and the receipt.

Rules work on layers, and each one only on what the rules before it left over. `match` decides and touches nothing;
`models.graft` applies what it decided and decides nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

from regraft.errors import WeightsError, nearest
from regraft.weights.attributes import attribute_findings
from regraft.weights.axes import Flip, Take
from regraft.weights.bind import Binder, Bound, append_step, leftovers, reads_image
from regraft.weights.file import SourceTensor, WeightFile
from regraft.weights.file_graph import FileGraph, file_graph
from regraft.weights.graph import Network, by_graph
from regraft.weights.layers import Layer, Slot, model_layers, source_layers
from regraft.weights.naming import Pair, by_family, by_name, by_suffix
from regraft.weights.report import Ambiguity, Finding, Match, MatchReport, WrongShape
from regraft.weights.structure import by_structure

__all__ = ["Match", "MatchReport", "Slot", "match", "names_slot"]


@dataclass
class _State:
    """What is decided so far, by layers."""

    targets: dict[str, Layer]
    sources: dict[str, Layer]
    pairs: list[Pair] = field(default_factory=list)
    ambiguous: list[tuple[list[Layer], list[Layer], str]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)

    def take(self, pairs: Iterable[Pair]) -> None:
        """Accept pairs whose two sides are both still free."""
        taken_targets = {pair.target.name for pair in self.pairs}
        taken_sources = {pair.source.name for pair in self.pairs}
        for pair in pairs:
            if pair.target.name not in taken_targets and pair.source.name not in taken_sources:
                self.pairs.append(pair)
                taken_targets.add(pair.target.name)
                taken_sources.add(pair.source.name)

    @property
    def free_targets(self) -> dict[str, Layer]:
        taken = {pair.target.name for pair in self.pairs}
        return {name: layer for name, layer in self.targets.items() if name not in taken}

    @property
    def free_sources(self) -> dict[str, Layer]:
        taken = {pair.source.name for pair in self.pairs}
        return {name: layer for name, layer in self.sources.items() if name not in taken}


def match(
    weights: WeightFile,
    slots: Sequence[Slot],
    *,
    skip: Sequence[str] = (),
    map: Mapping[str, str] | None = None,
    model: str = "",
    flip_stem: bool = False,
    adapt_input: bool = False,
    class_order: Sequence[int] | None = None,
) -> MatchReport:
    """Decide what of a file goes where in a model.

    Args:
        weights: The file.
        slots: The model's tensors.
        skip: Names or patterns (`fc8`, `head.*`) of layers or tensors, of either side, to leave out; `type:BatchNorm2d`
            leaves out all layers of the model of that kind.
        map: Pairs by hand, {name in the model: name in the file}, of layers or of single tensors; either direction.
        model: The model's name, for the report.
        flip_stem: Whether the stem's input channels are reversed (a file for BGR images, a model for RGB ones).
        adapt_input: Whether a stem of another number of input channels is adapted (3 -> 1 added up, 3 -> N repeated).
        class_order: For each class of the model its row in the file's classifier.

    Raises:
        WeightsError: `map` or `skip` names something that neither side has.
    """
    slots = tuple(slots)
    targets, sources = model_layers(slots), source_layers(weights)
    binder = Binder(weights, targets, sources, adapt_input=adapt_input)
    state = _State(targets, sources)
    by_hand = _by_hand(map or {}, slots, weights, state)
    state.take(by_name(state.free_targets, state.free_sources))
    state.take(by_family(state.free_targets, state.free_sources, binder.fits))
    state.take(by_suffix(state.free_targets, state.free_sources, binder.fits))
    graph = file_graph(weights)
    _by_evidence(weights, graph, state, binder)
    state.findings += attribute_findings(state.pairs, graph, weights.format)
    bound = binder.bind(state.pairs)
    _bind_by_hand(by_hand, binder, bound)
    _exact_tensors(weights, slots, bound)
    bound.findings += leftovers(state.pairs, bound)
    if flip_stem:
        append_step(bound, [slot for slot in slots if reads_image(slot)], Flip(1))
    if class_order is not None:
        append_step(bound, _classifier(slots), Take(tuple(class_order), 0))
    options = {
        "skip": list(skip),
        "map": dict(map or {}),
        "flip_stem": flip_stem,
        "adapt_input": adapt_input,
        "class_order": None if class_order is None else list(class_order),
    }
    report = _report(weights, slots, state, bound, _Skip(skip, slots, weights), model)
    return replace(report, options={name: value for name, value in options.items() if value})


def _by_evidence(weights: WeightFile, graph: FileGraph | None, state: _State, binder: Binder) -> None:
    """What no name decides: the file's own graph first, then shapes in the order of execution."""
    if graph is not None and state.free_targets and state.free_sources:
        model = Network(
            state.targets,
            {name: frozenset(layer.inputs) for name, layer in state.targets.items() if layer.inputs is not None},
            {name: frozenset(layer.pools) for name, layer in state.targets.items()},
        )
        file = Network(state.sources, graph.inputs, graph.pools)
        anchors = {pair.target.name: pair.source.name for pair in state.pairs if pair.source.name in graph.inputs}
        state.take(pair for pair in by_graph(model, file, anchors) if binder.fits(pair.target, pair.source))
    aligned = by_structure(state.free_targets, state.free_sources, state.targets, binder.fits, ordered=weights.ordered)
    state.take(aligned.pairs)
    state.ambiguous += aligned.ambiguous


def _classifier(slots: Sequence[Slot]) -> list[Slot]:
    """Kernel and bias of the last layer of the head."""
    head = [slot for slot in slots if slot.part == "head" and (slot.role.endswith("kernel") or slot.role == "bias")]
    return [slot for slot in head if slot.layer == head[-1].layer]


# --- what the user says -------------------------------------------------------------------------------------------


def _by_hand(
    named: Mapping[str, str], slots: Sequence[Slot], weights: WeightFile, state: _State
) -> list[tuple[Slot, SourceTensor]]:
    """Pairs of layers go into the state; pairs of single tensors are returned."""
    slot_of = {slot.name: slot for slot in slots}
    tensors: list[tuple[Slot, SourceTensor]] = []
    problems: list[str] = []
    for left, right in named.items():
        for target, source in ((left, right), (right, left)):
            if target in state.targets and source in state.sources:
                state.take([Pair(state.targets[target], state.sources[source], "map")])
                break
            if target in slot_of and source in weights.tensors:
                tensors.append((slot_of[target], weights.tensors[source]))
                break
        else:
            known = [*state.targets, *state.sources, *slot_of, *weights.tensors]
            near = [nearest(name, known) for name in (left, right) if name not in known]
            problems.append(f"{left} = {right}: near to it are {'; '.join(n for n in near if n) or 'no names'}")
    if problems:
        raise WeightsError(
            f"{len(problems)} of the pairs given by hand name nothing on one of the sides.",
            "A pair names a layer (or a tensor) of the model and one of the file.",
            "`regraft inspect FILE` and `regraft inspect MODEL` list the names.",
            details=problems,
        )
    return tensors


def _bind_by_hand(pairs: list[tuple[Slot, SourceTensor]], binder: Binder, bound: Bound) -> None:
    for slot, tensor in pairs:
        steps = binder.steps(slot, tensor)
        if steps is None:
            bound.matches.pop(slot.name, None)
            bound.wrong.append(WrongShape(slot.name, tensor.name, slot.shape, tensor.shape))
        else:
            bound.matches[slot.name] = Match(slot.name, (tensor,), "map", steps)


class _Skip:
    """What to leave out on request, on both sides."""

    def __init__(self, patterns: Sequence[str], slots: Sequence[Slot], weights: WeightFile) -> None:
        self.targets = {slot.name for slot in slots if any(names_slot(pattern, slot) for pattern in patterns)}
        self.sources = {t.name for t in weights if any(_names(p, t.name, t.layer) for p in patterns)}
        idle = [
            pattern
            for pattern in patterns
            if not any(names_slot(pattern, slot) for slot in slots)
            and not any(_names(pattern, tensor.name, tensor.layer) for tensor in weights)
        ]
        if idle:
            known = [slot.layer for slot in slots] + [tensor.layer for tensor in weights]
            raise WeightsError(
                f"Nothing of the file or the model is called {', '.join(map(repr, idle))}, so it cannot be skipped.",
                "A name or a pattern of a layer or a tensor was expected"
                + (f"; near are {near}." if (near := nearest(idle[0], known)) else "."),
                "Correct it, or leave it out.",
            )


def names_slot(pattern: str, slot: Slot) -> bool:
    """Whether a pattern names a tensor of the model, or the kind of its layer (`type:BatchNorm2d`)."""
    if pattern.startswith("type:"):
        return fnmatchcase(slot.kind, pattern.removeprefix("type:"))
    return _names(pattern, slot.name, slot.layer)


def _names(pattern: str, name: str, layer: str) -> bool:
    """Whether a pattern names a tensor: its own name, its layer, or a part of the path above it."""
    layer_path = layer.replace("/", ".")
    return (
        fnmatchcase(name, pattern)
        or fnmatchcase(layer, pattern)
        or layer_path.startswith(pattern.replace("/", ".") + ".")
        or layer.split("/")[-1] == pattern
    )


# --- single tensors -----------------------------------------------------------------------------------------------


def _exact_tensors(weights: WeightFile, slots: Sequence[Slot], bound: Bound) -> None:
    """Tensors of no layer kind that regraft knows (class tokens, layer scales): by their whole name and shape."""
    used = {source.name for match in bound.matches.values() for source in match.sources}
    wrong = {pair.target for pair in bound.wrong}
    for slot in slots:
        tensor = weights.tensors.get(slot.name)
        if slot.name in bound.matches or slot.name in wrong or tensor is None or tensor.name in used:
            continue
        if tensor.shape == slot.shape:
            bound.matches[slot.name] = Match(slot.name, (tensor,), "exact name")
        else:
            bound.wrong.append(WrongShape(slot.name, tensor.name, slot.shape, tensor.shape))


# --- the account --------------------------------------------------------------------------------------------------


def _report(
    weights: WeightFile, slots: Sequence[Slot], state: _State, bound: Bound, skip: _Skip, model: str
) -> MatchReport:
    """Every tensor of both sides in exactly one place."""
    matched = [
        bound.matches[slot.name]
        for slot in slots
        if slot.name in bound.matches and not _is_skipped(bound.matches[slot.name], skip)
    ]
    done = {match.target for match in matched} | skip.targets
    done |= {match.target for match in bound.matches.values() if _is_skipped(match, skip)}
    dropped_targets = sorted(done - {match.target for match in matched}, key=_order_of(slots).__getitem__)
    wrong = [pair for pair in bound.wrong if pair.target not in done and pair.source not in skip.sources]
    ambiguous = _ambiguities(state, done | {pair.target for pair in wrong}, skip)
    left_out = done | {pair.target for pair in wrong} | {name for group in ambiguous for name in group.targets}
    used = {source.name for match in matched for source in match.sources}
    used |= {pair.source for pair in wrong} | {name for group in ambiguous for name in group.sources}
    dropped = [tensor.name for tensor in weights if tensor.name in skip.sources and tensor.name not in used]
    return MatchReport(
        file=weights.path,
        format=weights.format,
        producer=weights.producer,
        model=model,
        matched=tuple(matched),
        missing=tuple(slot.name for slot in slots if slot.name not in left_out),
        unexpected=tuple(t.name for t in weights if t.name not in used and t.name not in skip.sources),
        wrong_shape=tuple(wrong),
        ambiguous=tuple(ambiguous),
        dropped=tuple(dropped),
        dropped_targets=tuple(dropped_targets),
        parts={slot.name: slot.part for slot in slots},
        findings=tuple(state.findings + bound.findings),
        notes=weights.notes,
    )


def _is_skipped(match: Match, skip: _Skip) -> bool:
    return match.target in skip.targets or any(source.name in skip.sources for source in match.sources)


def _order_of(slots: Sequence[Slot]) -> dict[str, int]:
    return {slot.name: place for place, slot in enumerate(slots)}


def _ambiguities(state: _State, settled: set[str], skip: _Skip) -> list[Ambiguity]:
    groups = []
    for targets, sources, decides in state.ambiguous:
        names = [slot.name for layer in targets for slot in layer.tensors.values() if slot.name not in settled]
        tensors = [tensor.name for layer in sources for tensor in layer.tensors.values()]
        if names:
            groups.append(Ambiguity(tuple(names), tuple(t for t in tensors if t not in skip.sources), decides))
    return groups
