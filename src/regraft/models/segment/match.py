"""Weights of a classification network for the encoder that was cut from it.

The file is matched to the whole network that it was made for, so that every tensor has its place by the best evidence
there is; then what the encoder does not have is left out and reported as dropped. A file of a whole segmentation
network is matched to the whole model, with the encoder's pairs as a beginning.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from regraft.errors import SettingsError
from regraft.models.describe.info import ModelInfo, info_of
from regraft.models.describe.provenance import SourceNetwork
from regraft.models.describe.slots import slots_of
from regraft.models.describe.trace import in_channels, plain
from regraft.models.segment.describe import ENCODER
from regraft.models.segment.encoder import source_network
from regraft.weights.file import WeightFile
from regraft.weights.match.match import match, names_slot
from regraft.weights.naming.layers import Slot, source_layers
from regraft.weights.report import Finding, MatchReport, WrongShape

__all__ = ["match_encoder"]

_PREFIX = f"{ENCODER}."
_LEAST_SHARE = 0.5  # of the decoder's tensors, for a file to be one of the whole network


def match_encoder(
    weights: WeightFile,
    model: nn.Module,
    *,
    skip: Sequence[str],
    map: Mapping[str, str],
    part: str | None,
    **options: Any,
) -> MatchReport:
    """Decide what of a file goes into the encoder of a segmentation network, or into all of it.

    Args:
        weights: The file.
        model: The network.
        skip: Patterns to leave out, of the model, of the encoder's own network or of the file.
        map: Pairs by hand; the model's names with or without `encoder.`.
        part: `encoder`, or None to find out whether the file is one of the whole network.
        **options: Those of `match`.
    """
    report = _matched(weights, model, skip, map, part, options)
    asked = {"skip": list(skip), "map": dict(map), "part": part, **options}
    place = {name: number for number, name in enumerate(weights.tensors)}
    return replace(
        report,
        dropped=tuple(sorted(report.dropped, key=lambda name: place[name])),
        options={name: value for name, value in asked.items() if value},
    )


def _matched(
    weights: WeightFile,
    model: nn.Module,
    skip: Sequence[str],
    map: Mapping[str, str],
    part: str | None,
    options: Mapping[str, Any],
) -> MatchReport:
    info = info_of(model)
    slots = slots_of(model, info)
    by_hand = {
        name.removeprefix(_PREFIX): other.removeprefix(_PREFIX)
        for name, other in map.items()
        if not any(_hits_only_new(side, slots) for side in (name, other))
    }
    own = [pattern for pattern in skip if _hits_only_new(pattern, slots)]
    inner = [pattern.removeprefix(_PREFIX) for pattern in skip if pattern not in own]
    encoder = _best(
        _as_encoder(match(weights, seen, skip=inner, map=by_hand, model=_name(info), **options), slots, own)
        for seen in _source_slots(model, info)
    )
    encoder = _without_dense(encoder, weights, slots)
    if part == "encoder" or not encoder.unexpected:
        return encoder
    pairs = {_layer(match.target): match.sources[0].layer for match in encoder.matched if match.sources}
    whole = match(weights, slots, skip=skip, map={**pairs, **map}, model=info.architecture, **options)
    new = [slot.name for slot in slots if slot.part == "decoder"]
    filled = {match.target for match in whole.matched if match.sources}
    if sum(name in filled for name in new) < _LEAST_SHARE * len(new):
        return encoder
    rules = {match.target: match.rule for match in encoder.matched}
    matched = tuple(replace(match, rule=rules.get(match.target, match.rule)) for match in whole.matched)
    return replace(whole, matched=matched)


def _best(reports: Iterable[MatchReport]) -> MatchReport:
    """Return the first report that fills the encoder, else the one that fills most of it."""
    seen: list[MatchReport] = []
    for report in reports:
        seen.append(report)
        if report.coverage["backbone"] == 1.0:
            return report
    return max(seen, key=lambda report: report.coverage["backbone"])


def _source_slots(model: nn.Module, info: ModelInfo) -> Iterator[tuple[Slot, ...]]:
    """Yield the slots of the whole network that the encoder was cut from, and those of them that the encoder still has.

    Layers that the encoder has are as they are now: their widths and strides may have been changed.
    """
    source = _source(info)
    with torch.device("meta"):
        network = source_network(
            source.name, in_chans=in_channels(plain(model).get_submodule(ENCODER))[0], arguments=source.arguments
        )
    now = {slot.name.removeprefix(_PREFIX): slot for slot in slots_of(model) if slot.part == "backbone"}
    whole = [(slot, now.get(slot.name, slot)) for slot in slots_of(network)]
    yield tuple(replace(slot, shape=own.shape, attributes=own.attributes) for slot, own in whole)
    yield tuple(replace(slot, shape=own.shape, attributes=own.attributes) for slot, own in whole if slot.name in now)


def _as_encoder(report: MatchReport, slots: Sequence[Slot], left_out: Sequence[str]) -> MatchReport:
    """Return the report on the whole classification network as one on the segmentation network.

    Such a file fills nothing of the decoder and the head: they are missing, but for what the patterns `left_out` name.
    """
    own = {slot.name for slot in slots}
    new = [slot for slot in slots if slot.part != "backbone"]
    rest = [slot.name for slot in new if any(names_slot(pattern, slot) for pattern in left_out)]
    layers = {_layer(name) for name in own}

    def has(name: str) -> bool:
        return _PREFIX + name in own

    matched = tuple(replace(match, target=_PREFIX + match.target) for match in report.matched if has(match.target))
    used = {source.name for match in matched for source in match.sources}
    lost = [source.name for match in report.matched if not has(match.target) for source in match.sources]
    lost += [pair.source for pair in report.wrong_shape if not has(pair.target)]
    ambiguous = [group for group in report.ambiguous if any(map(has, group.targets))]
    lost += [name for group in report.ambiguous if group not in ambiguous for name in group.sources]
    return replace(
        report,
        matched=matched,
        missing=(
            *(_PREFIX + name for name in report.missing if has(name)),
            *(slot.name for slot in new if slot.name not in rest),
        ),
        wrong_shape=tuple(
            WrongShape(_PREFIX + pair.target, pair.source, pair.target_shape, pair.source_shape)
            for pair in report.wrong_shape
            if has(pair.target)
        ),
        ambiguous=tuple(
            replace(group, targets=tuple(_PREFIX + name for name in group.targets if has(name))) for group in ambiguous
        ),
        dropped=tuple(dict.fromkeys([*report.dropped, *(name for name in lost if name not in used)])),
        dropped_targets=(*(_PREFIX + name for name in report.dropped_targets if has(name)), *rest),
        parts={slot.name: slot.part for slot in slots},
        findings=tuple(_finding(finding, layers) for finding in report.findings if _concerns(finding, layers)),
    )


def _without_dense(report: MatchReport, weights: WeightFile, slots: Sequence[Slot]) -> MatchReport:
    """Count dense layers that no other rule has placed as dropped, where the encoder lacks none of its own."""
    missing = set(report.missing)
    if any(slot.role == "dense_kernel" and slot.part == "backbone" and slot.name in missing for slot in slots):
        return report
    dense = {layer.name for layer in source_layers(weights).values() if layer.kind == "dense"}
    lost = [name for name in report.unexpected if weights.tensors[name].layer in dense]
    return replace(
        report,
        unexpected=tuple(name for name in report.unexpected if name not in lost),
        dropped=(*report.dropped, *lost),
    )


def _finding(finding: Finding, layers: set[str]) -> Finding:
    named = tuple(_PREFIX + layer for layer in finding.layers if _PREFIX + layer in layers)
    return replace(finding, layer=finding.layer and _PREFIX + finding.layer, layers=named)


def _concerns(finding: Finding, layers: set[str]) -> bool:
    """Return whether a finding says something of the encoder, not of what was cut off alone."""
    named = [*finding.layers, *([finding.layer] if finding.layer else [])]
    return not named or any(_PREFIX + layer in layers for layer in named)


def _hits_only_new(pattern: str, slots: Sequence[Slot]) -> bool:
    """Return whether a pattern names the decoder or the head, which a file for the encoder leaves alone anyway."""
    hits = {slot.part for slot in slots if names_slot(pattern, slot)}
    return bool(hits) and "backbone" not in hits


def _name(info: ModelInfo) -> str:
    return f"{info.architecture} ({_source(info).name})"


def _source(info: ModelInfo) -> SourceNetwork:
    """Return the network that the encoder was cut from."""
    if info.origin.encoder is None:
        raise SettingsError(
            f"{info.architecture!r} does not say which network its encoder was cut from.",
            "a network that `build_model` built",
            "pass `part='all'`",
        )
    return info.origin.encoder


def _layer(name: str) -> str:
    return name.rpartition(".")[0]
