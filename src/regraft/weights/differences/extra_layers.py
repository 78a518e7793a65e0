"""Layers of the file inside what was matched, for which the model has no place.

No count shows them: every tensor of the model is filled, and the file's network is still another one.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from regraft.weights.file import SourceTensor
from regraft.weights.naming.inert import is_inert
from regraft.weights.naming.layers import Layer
from regraft.weights.naming.naming import Pair
from regraft.weights.naming.paths import Path, common_parts, counted, parts_of
from regraft.weights.report import Finding
from regraft.weights.words import some

__all__ = ["extra_layers"]

_IN_A_TRUNK = re.compile(r"(block|transition|sep|fire|shortcut)\d+\b.*")
_MOST_TYPED = 64


@dataclass
class _Series:
    """The numbers that matched layers have in one place of their paths, and the shapes of these layers."""

    numbers: set[int] = field(default_factory=set)
    signatures: set[object] = field(default_factory=set)


class _Trunk:
    """The paths of all layers of the file that fill the backbone."""

    def __init__(self, layers: Sequence[Layer]) -> None:
        paths = [parts_of(layer.name) for layer in layers]
        self.starts = {path[:depth] for path in paths for depth in range(len(path) + 1)}
        self.common = common_parts(paths)
        self.is_flat = 2 * sum(len(path) == len(self.common) + 1 for path in paths) > len(paths)
        self.first = min((layer.order for layer in layers), default=0)
        self.last = max((layer.order for layer in layers), default=0)
        self.widths = {width for layer in layers for width in layer.shape[:2]}
        self._series: dict[tuple[Path, str], _Series] = {}
        for layer, path in zip(layers, paths, strict=True):
            for depth, part in enumerate(path):
                if count := counted(part):
                    series = self._series.setdefault((path[:depth], count[0]), _Series())
                    series.numbers.add(count[1])
                    series.signatures.add(layer.signature)

    def shared(self, path: Path) -> int:
        """Return the length of the longest beginning of a path that a matched one also has, in parts."""
        return next(depth for depth in range(len(path), -1, -1) if path[:depth] in self.starts)

    def runs_around(self, layer: Layer) -> bool:
        """Return whether a layer with a kernel or channels stands between those of the trunk in the file's order."""
        return layer.kind != "other" and self.first < layer.order < self.last

    def is_link(self, path: Path, layer: Layer, *, ordered: bool) -> bool:
        """Return whether it is one more link of a trunk that is a single chain of layers.

        A dense layer is another head, and what hands on another number of channels than any layer of the trunk has is a
        side output; where the file's order is one of layers, a link stands between others.
        """
        beside = self.is_flat and len(path) == len(self.common) + 1 and path[: len(self.common)] == self.common
        beside = beside and bool(layer.shape) and layer.shape[0] in self.widths
        return beside and layer.kind not in ("other", "dense") and (not ordered or self.first < layer.order < self.last)

    def goes_on(self, path: Path, layer: Layer) -> bool:
        """Return whether a layer stands in a numbered series of the trunk: between its numbers, or of equal shapes."""
        depth = self.shared(path)
        count = counted(path[depth]) if depth < len(path) else None
        series = self._series.get((path[:depth], count[0])) if count else None
        if series is None or count is None:
            return False
        inside = min(series.numbers) < count[1] < max(series.numbers)
        return inside or (layer.kind != "other" and layer.signature in series.signatures)


def extra_layers(
    pairs: Sequence[Pair],
    unexpected: Sequence[SourceTensor],
    sources: Mapping[str, Layer],
    parts: Mapping[str, str],
    unplaced: Mapping[str, str],
    *,
    ordered: bool,
) -> list[Finding]:
    """Return layers of the file that lie inside what was matched and that the model has no place for.

    Args:
        pairs: What was matched.
        unexpected: The tensors of the file that go nowhere.
        sources: The file's layers.
        parts: `backbone` or `head` for each layer of the model.
        unplaced: Addresses of layers of the file that the family's table knows and the model lacks.
        ordered: Whether the file's order is one of layers.
    """
    filled = [
        pair.source for pair in pairs if parts.get(pair.target.name) == "backbone" and pair.source.kind != "other"
    ]
    if not filled:
        return []
    trunk = _Trunk(filled)
    placed = {pair.source.name for pair in pairs}
    by_shape = 2 * sum(pair.rule.startswith(("structure", "graph")) for pair in pairs) > len(pairs)
    layers = _tensors_of(sources)
    branches = _branches_with_kernels(sources, len(trunk.common))
    extra: dict[str, str] = {}  # by layer, the part of its path that leaves the trunk
    for tensor in unexpected:
        layer = layers.get(tensor.name)
        if layer is None or layer.name in placed or is_inert(tensor):
            continue  # what is left of a layer that was placed is a finding of its own
        path = parts_of(layer.name)
        depth = trunk.shared(path)
        if (
            depth > len(trunk.common)
            or trunk.goes_on(path, layer)
            or trunk.is_link(path, layer, ordered=ordered)
            or _IN_A_TRUNK.fullmatch(unplaced.get(layer.name, ""))
            or (ordered and trunk.runs_around(layer) and (by_shape or _is_lone_norm(layer, path, trunk, branches)))
        ):
            extra[layer.name] = _beginning(layer.name, depth + 1)
    return [_extra_finding(extra)] if extra else []


def _tensors_of(sources: Mapping[str, Layer]) -> dict[str, Layer]:
    return {tensor.name: layer for layer in sources.values() for tensor in layer.tensors.values()}


def _branches_with_kernels(sources: Mapping[str, Layer], depth: int) -> set[Path]:
    """Return the parts of the file below a depth that hold convolutions or dense layers."""
    return {parts_of(name)[: depth + 1] for name, layer in sources.items() if "kernel" in layer.tensors}


def _is_lone_norm(layer: Layer, path: Path, trunk: _Trunk, branches: set[Path]) -> bool:
    """Return a normalisation that belongs to no branch of its own (`norm_pre`), not to a head beside the trunk."""
    lone = layer.kind == "norm" and path[: len(trunk.common) + 1] not in branches
    return lone and path[: len(trunk.common)] == trunk.common


def _beginning(name: str, num_parts: int) -> str:
    """Return the first parts of a path, with the signs between them."""
    parts = re.split(r"([./#]+)", name)
    return "".join(parts[: 2 * num_parts - 1])


def _extra_finding(extra: Mapping[str, str]) -> Finding:
    skips = [f"--skip {beginning}" for beginning in dict.fromkeys(extra.values())]
    more = f" and {len(skips) - _MOST_TYPED} more" if len(skips) > _MOST_TYPED else ""
    return Finding(
        "extra",
        "",
        f"{some(list(extra))} of the file, inside the part that was matched, have no place in the model: the file's "
        f"network is deeper, or has layers that the model lacks (to leave them out all the same: "
        f"{' '.join(skips[:_MOST_TYPED])}{more})",
        serious=True,
    )
