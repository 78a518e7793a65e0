"""Which tensor of a file goes where in a model: the rules in their order, and the receipt.

Rules work on layers, and each one only on what the rules before it left over. `match` decides and touches nothing;
`models.graft` applies what it decided and decides nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from regraft.errors import WeightsError, nearest
from regraft.weights.axes import Flip, Take
from regraft.weights.differences.attributes import attribute_findings
from regraft.weights.differences.file_graph import FileGraph, file_graph
from regraft.weights.file import SourceTensor, WeightFile
from regraft.weights.likely import likely_architectures
from regraft.weights.match.account import account
from regraft.weights.match.bind import Binder, Bound, append_step, leftovers, zeros_said
from regraft.weights.match.copies import choice, other_copies
from regraft.weights.match.fit import Fitter, reads_image
from regraft.weights.match.graph import Network, by_graph
from regraft.weights.match.inversions import inverted
from regraft.weights.match.loose_tensors.loose import bind_loose
from regraft.weights.match.quantised import quantised
from regraft.weights.match.skipping import Skip, names_slot
from regraft.weights.match.state import State
from regraft.weights.match.structure.structure import Order, by_structure
from regraft.weights.naming.layers import Layer, Slot, loose_layers, loose_slots, model_layers, source_layers
from regraft.weights.naming.made.attention import as_in_model, with_projection
from regraft.weights.naming.made.merging import with_merging_in_blocks
from regraft.weights.naming.made.weight_norm import with_whole_kernels
from regraft.weights.naming.naming import Pair, Side, by_convolution, by_family, by_name, by_suffix
from regraft.weights.naming.recognized import recognized
from regraft.weights.naming.spellings import by_parts, by_underscores
from regraft.weights.report import Finding, Match, MatchReport, WrongShape

__all__ = ["Match", "MatchReport", "Slot", "match", "names_slot"]

# Formats whose order is that in which a program defined its layers, where no graph lies beside them.
_STATE_DICTS = frozenset({"torch_pth", "pt2", "pkl", "pdparams", "mxnet_params"})
_INVERTED = (
    "these layers are in a different order by name than by execution; numbers of the names may have been "
    "shifted; --map, or --check image=logits, settles it"
)
_CUT = (
    "the file's first block is that of {}: networks whose layers have these names have blocks before it, which may "
    "have been cut off; the blocks were paired in order, and --check image=logits settles whether that is right"
)
_UNSEEN = "layers without weights in between (pooling, dropout) may differ as well: --check image=logits settles it"
_CLEARLY = 0.8  # of all kernels that file and network have


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
    key: str | None = None,
    in_order: bool = False,
) -> MatchReport:
    """Decide what of a file goes where in a model.

    Args:
        weights: The file.
        slots: The model's tensors.
        skip: Names or patterns (`fc8`, `head.*`) of layers or tensors, of either side, to leave out; `type:BatchNorm2d`
            leaves out all layers of the model of that kind. What is skipped of the file leaves before anything is
            decided.
        map: Pairs by hand, {name in the model: name in the file}, of layers or of single tensors; either direction.
        model: The model's name, for the report.
        flip_stem: Whether the stem's input channels are reversed (a file for BGR images, a model for RGB ones).
        adapt_input: Whether a stem of another number of input channels is adapted (3 -> 1 added up, 3 -> N repeated).
        class_order: For each class of the model its row in the file's classifier.
        key: What the names of the part of the file to take begin with (`encoder_q`), where it holds several networks.
        in_order: Whether the order of a PyTorch file, which is that of definition, is taken as that of execution; where
            a file has no order, that of the numbers in its names.

    Raises:
        WeightsError: `map`, `skip` or `key` names something that neither side has.
    """
    slots = tuple(slots)
    weights = weights.under(key) if key else weights
    skipped = Skip(skip, slots, weights)
    rules = _Rules(slots, map or {}, adapt_input=adapt_input, in_order=in_order)
    kept = skipped.kept(weights, keep=[*(map or {}), *(map or {}).values()])
    graph = file_graph(weights)
    decided = rules.decide(kept, graph, skipped)
    if kept is not weights:  # what would have come from a skipped layer is left out on request, too
        skipped.leave_out(rules.decide(weights, graph, skipped).bound, decided.bound)
    if flip_stem:
        append_step(decided.bound, [slot for slot in slots if reads_image(slot)], Flip(1))
    if class_order is not None:
        append_step(decided.bound, _classifier(slots), Take(tuple(class_order), 0))
    options = {
        "skip": list(skip),
        "map": dict(map or {}),
        "flip_stem": flip_stem,
        "adapt_input": adapt_input,
        "class_order": None if class_order is None else list(class_order),
        "key": key,
        "in_order": in_order,
    }
    report = account(weights, slots, decided.state, decided.bound, skipped, model)
    report = replace(report, options={name: value for name, value in options.items() if value})
    return replace(report, recognized=_recognized(weights), likely=_likely(weights)) if _is_short(report) else report


def _is_short(report: MatchReport) -> bool:
    """Return whether something of the backbone is not filled, so that the user wants to know what the file is."""
    return report.coverage["backbone"] < 1.0


def _recognized(weights: WeightFile) -> str:
    found = recognized(weights)
    if found is None:
        return ""
    return f"{found.num_layers} of {found.of} layers have names as {found.dialect} gives them in {found.family}"


def _likely(weights: WeightFile) -> str:
    """Return the network of the list that has nearly all kernels of the file; an empty string without one."""
    best = likely_architectures(weights, num_best=1)
    return best[0][0] if best and best[0][1] >= _CLEARLY else ""


@dataclass(frozen=True)
class _Decided:
    """What came of the rules."""

    state: State
    bound: Bound


class _Rules:
    """The rules in their order, for one model."""

    def __init__(self, slots: Sequence[Slot], map: Mapping[str, str], *, adapt_input: bool, in_order: bool) -> None:
        self._slots, self._map = slots, map
        self._adapt_input, self._in_order = adapt_input, in_order

    def decide(self, weights: WeightFile, graph: FileGraph | None, skip: Skip) -> _Decided:
        """Return the assignment of a file's tensors to the model."""
        targets = model_layers(self._slots)
        whole = with_merging_in_blocks(with_whole_kernels(source_layers(weights)))
        sources = as_in_model(with_projection(whole), targets)
        fitter = Fitter(weights, adapt_input=self._adapt_input)
        binder = Binder(weights, targets, sources, fitter)
        state = State(targets, sources)
        by_hand = _by_hand(self._map, self._slots, weights, state)
        self._by_names(state, fitter, binder.norm_behind, loose_layers(sources))
        self._by_evidence(weights, graph, state, fitter)
        for group in inverted(state.pairs, ordered=weights.ordered):
            state.reopen(group, _INVERTED)
        state.findings += attribute_findings(state.pairs, graph, weights)
        bound = binder.bind(state.pairs)
        _bind_by_hand(by_hand, fitter, bound)
        bind_loose(weights, self._slots, state, fitter, bound)
        bound.matches = {name: match.of_the_file() for name, match in bound.matches.items()}
        bound.findings += [*zeros_said(bound, state.pairs), *leftovers(state.pairs, bound, skip.sources)]
        bound.findings += quantised(bound, self._slots)
        bound.findings += [
            Finding("note", "", f"numbers differ between file and model and were paired in order: {how}; {_UNSEEN}")
            for how in dict.fromkeys(pair.renumbered for pair in state.pairs if pair.renumbered)
        ]
        return _Decided(state, bound)

    def _by_names(
        self, state: State, fitter: Fitter, norm_behind: Mapping[str, Layer], loose: Mapping[str, Layer]
    ) -> None:
        """Pair what names decide: the same ones, those of a family, the same ones below another prefix."""
        exact = by_name(state.free_targets, state.free_sources, fitter.fits)
        self._take(exact, other_copies(exact, state.free_sources), state)
        ours, theirs = Side(state.free_targets, loose_slots(self._slots)), Side(state.free_sources, loose)
        spoken = by_family(ours, theirs, fitter.fits)
        num_contested = len(state.ambiguous)
        if self._take_or_contest(spoken.pairs, state):
            state.unplaced |= spoken.unplaced
            if spoken.begins:
                is_cut = not spoken.is_same  # other numbers alone, with the model's own names, are only said
                text = _CUT.format(spoken.begins)
                state.findings.append(Finding("unknown", "", text, serious=is_cut, unknown=True))
            if len(state.ambiguous) == num_contested:
                state.take_loose(spoken.loose)
        while exchange := by_suffix(state.free_targets, state.free_sources, fitter.fits):
            if not self._take_or_contest(exchange.pairs, state, is_tie=exchange.is_tie):
                break
        for rule in (by_underscores, by_parts):
            self._take_or_contest(rule(state.free_targets, state.free_sources, fitter.fits), state)
        named = by_convolution(state.pairs, norm_behind, state.free_targets, state.free_sources, fitter.fits)
        self._take(named, [], state)

    def _take_or_contest(self, pairs: Sequence[Pair], state: State, *, is_tie: bool = False) -> bool:
        """Accept pairs, unless the file holds these layers more than once."""
        copies = other_copies(pairs, state.free_sources)
        if copies and copies[0]:
            state.contest(pairs, copies)
            return True
        if is_tie or not pairs:
            return False
        self._take(pairs, copies, state)
        return True

    def _take(self, pairs: Sequence[Pair], copies: Sequence[str], state: State) -> None:
        """Accept pairs; where their names have no prefix, copies under prefixes are only noted."""
        state.take(pairs)
        if copies:
            state.findings.append(Finding("note", "", f"the names without a prefix were taken; {choice(copies)}"))

    def _by_evidence(self, weights: WeightFile, graph: FileGraph | None, state: State, fitter: Fitter) -> None:
        """Pair what no name decides: the file's own graph first, then shapes in the order of execution."""
        if graph is not None and state.free_targets and state.free_sources:
            self._by_graph(graph, state, fitter)
        aligned = by_structure(
            state.free_targets,
            state.free_sources,
            state.targets,
            fitter.fits,
            order=self._order_of(weights),
            settled=state.pairs,
        )
        state.take(aligned.pairs)
        state.leave_open(aligned.ambiguous)
        state.findings += aligned.findings

    def _by_graph(self, graph: FileGraph, state: State, fitter: Fitter) -> None:
        """Pair layers by their surroundings; where the file has fewer normalisations, by those of kernels alone."""
        model = Network(
            state.targets,
            {name: frozenset(layer.inputs) for name, layer in state.targets.items() if layer.inputs is not None},
            {name: frozenset(layer.pools) for name, layer in state.targets.items()},
        )
        file = Network(state.sources, graph.inputs, graph.pools)
        norms = [sum(layer.kind == "norm" for layer in side.values()) for side in (state.targets, state.sources)]
        for kernels_only in (False, True) if norms[1] < norms[0] else (False,):
            anchors = {pair.target.name: pair.source.name for pair in state.pairs if pair.source.name in graph.inputs}
            found = by_graph(model, file, anchors, kernels_only=kernels_only)
            state.take(pair for pair in found if fitter.fits(pair.target, pair.source))

    def _order_of(self, weights: WeightFile) -> Order:
        """Return the kind of order in the file: definition in PyTorch files, execution in other ordered formats."""
        if not weights.ordered:
            return "numbers" if self._in_order else "none"
        is_state = weights.format in _STATE_DICTS and not weights.graph
        return "definition" if is_state and not self._in_order else "execution"


def _classifier(slots: Sequence[Slot]) -> list[Slot]:
    """Return kernel and bias of the last layer of the head."""
    head = [slot for slot in slots if slot.part == "head" and (slot.role.endswith("kernel") or slot.role == "bias")]
    return [slot for slot in head if slot.layer == head[-1].layer]


# --- what the user says -------------------------------------------------------------------------------------------


def _by_hand(
    named: Mapping[str, str], slots: Sequence[Slot], weights: WeightFile, state: State
) -> list[tuple[Slot, SourceTensor]]:
    """Sort pairs by hand: pairs of layers go into the state; pairs of single tensors are returned."""
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
            problems.append(f"{left} = {right}: did you mean {'; '.join(n for n in near if n) or 'nothing similar'}")
    if problems:
        raise WeightsError(
            f"{len(problems)} of the pairs in --map name nothing on one side.",
            "a layer (or tensor) of the model and one of the file",
            "`regraft inspect FILE` and `regraft inspect MODEL` list the names",
            details=problems,
        )
    return tensors


def _bind_by_hand(pairs: list[tuple[Slot, SourceTensor]], fitter: Fitter, bound: Bound) -> None:
    for slot, tensor in pairs:
        steps = fitter.steps(slot, tensor)
        if steps is None:
            bound.matches.pop(slot.name, None)
            bound.wrong.append(WrongShape(slot.name, tensor.name, slot.shape, tensor.shape))
        else:
            bound.matches[slot.name] = Match(slot.name, (tensor,), "map", steps)
