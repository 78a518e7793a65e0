"""A model's layers as selectors see them: by part, by resolution stage and by every name that they go by."""

from __future__ import annotations

import re
from collections.abc import Iterable

from torch import nn

from regraft.models.describe.info import is_under
from regraft.models.layers.layers import Layer, survey

__all__ = ["ROOT", "Listing", "owning"]

ROOT = "(model)"  # the name of the model itself where it owns parameters
_BLOCK = re.compile(r"block(\d+)")


class Listing:
    """The layers of a model; `owners` are the names of those with weights."""

    def __init__(self, model: nn.Module) -> None:
        found = survey(model)
        self.info, self.calls, self.layers = found.info, found.calls, found.layers
        self.modules = dict(model.named_modules())
        self.backbone = [layer for layer in self.layers if layer.part == "backbone"]
        self.owners = owning(self.layers)
        self.aliases = found.aliases | {
            name: layer.aliases for layer in self.layers for name in (layer.name, *layer.also)
        }

    def part(self, part: str) -> list[Layer]:
        """Return the layers of the backbone, the decoder or the head."""
        return [layer for layer in self.layers if layer.part == part]

    def spans(self) -> list[list[str]]:
        """Return backbone layers by resolution stage; stages without weights are not counted."""
        calls = self.calls
        ends = [end for name in self.info.feature_stages if (end := self._end(name)) is not None]
        starts = [call.start for call in calls.values()]
        names = owning(self.backbone) if ends else []
        spans: list[list[str]] = [[] for _ in ends]
        span, last = 0, min(starts, default=0)
        for name in names:
            last = max(last, calls[name].start) if name in calls and name else last
            while span < len(ends) - 1 and last > ends[span]:
                span += 1
            spans[span].append(name)
        return [span for span in spans if span]

    def _end(self, name: str) -> int | None:
        """Return when a module, or the last module in a container that is never called itself, ended."""
        inside = [call.end for other, call in self.calls.items() if is_under(other, (name,))]
        return max(inside, default=None)

    def names(self, name: str) -> tuple[str, ...]:
        """Return the names of a module: its own and its aliases."""
        return (name or ROOT, *self.aliases.get(name, ()))

    def find(self, word: str) -> list[str]:
        """Return the layers of a module, a layer or a block of exactly this name; empty when there are none."""
        for search in (self._by_module, self._by_alias, self._by_block):
            if found := search(word):
                return found
        return []

    @property
    def known(self) -> list[str]:
        """Every name, those of layers without weights among them."""
        return [
            *(text for name in self.modules for text in self.names(name)),
            *(layer.name for layer in self.layers if not layer.owns),
        ]

    def _by_module(self, word: str) -> list[str]:
        return [name for name in self.owners if is_under(name, (word,))] if word else []

    def _by_alias(self, word: str) -> list[str]:
        tops = [name for name, names in self.aliases.items() if word in names]
        if tops:
            return [name for name in self.owners if is_under(name, tops)]
        return [name for name in self.owners if any(a.startswith(f"{word}_") for a in self.aliases.get(name, ()))]

    def _by_block(self, word: str) -> list[str]:
        """Find `block5` where no module has exactly that name or alias: `block5a_…` in Keras, else the fifth stage."""
        match = _BLOCK.fullmatch(word)
        if not match:
            return []
        lettered = re.compile(rf"{word}[a-z]_")
        found = [name for name in self.owners if any(lettered.match(a) for a in self.aliases.get(name, ()))]
        spans = self.spans() if not found else []
        number = int(match[1])
        return found or (spans[number - 1] if 1 <= number <= len(spans) else [])


def owning(layers: Iterable[Layer]) -> list[str]:
    """Return the names of the modules of layers that own parameters or buffers."""
    return [name for layer in layers for name in layer.modules]
