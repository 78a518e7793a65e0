"""What to leave out on request, on both sides: sources leave before anything is decided."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from regraft.errors import WeightsError, nearest
from regraft.weights.file import WeightFile
from regraft.weights.match.bind import Bound
from regraft.weights.naming.layers import Slot

__all__ = ["Skip", "names_slot"]


class Skip:
    """What to leave out on request, on both sides."""

    def __init__(self, patterns: Sequence[str], slots: Sequence[Slot], weights: WeightFile) -> None:
        self.targets = {slot.name for slot in slots if any(names_slot(pattern, slot) for pattern in patterns)}
        self.sources = {t.name for t in weights if any(_names(p, t.name, t.layer) for p in patterns)}
        self.left_out: set[str] = set()
        idle = [
            pattern
            for pattern in patterns
            if not any(names_slot(pattern, slot) for slot in slots)
            and not any(_names(pattern, tensor.name, tensor.layer) for tensor in weights)
        ]
        if idle:
            known = [slot.layer for slot in slots] + [tensor.layer for tensor in weights]
            raise WeightsError(
                f"Nothing of the file or the model is called {', '.join(map(repr, idle))}, so it cannot be skipped"
                + (f"; did you mean {near}?" if (near := nearest(idle[0], known)) else "."),
                "the name or a pattern of a layer or a tensor",
            )

    def kept(self, weights: WeightFile, keep: Collection[str]) -> WeightFile:
        """Return the file without the layers that are skipped as a whole, except those named by hand; itself without
        any.
        """
        whole = {
            layer
            for layer, tensors in weights.layers.items()
            if layer not in keep and all(t.name in self.sources and t.name not in keep for t in tensors)
        }
        if not whole:
            return weights
        return replace(weights, tensors={name: t for name, t in weights.tensors.items() if t.layer not in whole})

    def leave_out(self, as_whole: Bound, decided: Bound) -> None:
        """Count as left out what the whole file would have filled from a skipped layer, and nothing else fills."""
        self.left_out = {
            name
            for name, match in as_whole.matches.items()
            if name not in decided.matches and any(source.name in self.sources for source in match.sources)
        }


def names_slot(pattern: str, slot: Slot) -> bool:
    """Return whether a pattern names a tensor of the model, or the kind of its layer (`type:BatchNorm2d`)."""
    if pattern.startswith("type:"):
        return fnmatchcase(slot.kind, pattern.removeprefix("type:"))
    return _names(pattern, slot.name, slot.layer)


def _names(pattern: str, name: str, layer: str) -> bool:
    """Return whether a pattern names a tensor: its own name, its layer, or a part of the path above it."""
    layer_path = layer.replace("/", ".")
    return (
        fnmatchcase(name, pattern)
        or fnmatchcase(layer, pattern)
        or layer_path.startswith(pattern.replace("/", ".") + ".")
        or layer.split("/")[-1] == pattern
    )
