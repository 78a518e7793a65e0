"""What the rules have decided so far, and what they left open."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from regraft.weights.match.copies import choice, common_path
from regraft.weights.naming.layers import Layer
from regraft.weights.naming.naming import Pair
from regraft.weights.report import Finding

__all__ = ["Group", "State"]


@dataclass(frozen=True)
class Group:
    """Layers between which the file does not decide; `prefixes` where whole copies of a network are meant."""

    targets: list[Layer]
    sources: list[Layer]
    decides: str
    prefixes: tuple[str, ...] = ()


@dataclass
class State:
    """What is decided so far, by layers; `unplaced` are addresses of layers of the file that the model lacks, `loose`
    pairs of single tensors, by that of the model.
    """

    targets: dict[str, Layer]
    sources: dict[str, Layer]
    pairs: list[Pair] = field(default_factory=list)
    ambiguous: list[Group] = field(default_factory=list)
    unplaced: dict[str, str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    loose: dict[str, Pair] = field(default_factory=dict)

    def take_loose(self, pairs: Iterable[Pair]) -> None:
        """Accept pairs of single tensors."""
        self.loose |= {pair.target.name: pair for pair in pairs}

    def take(self, pairs: Iterable[Pair]) -> None:
        """Accept pairs whose two sides are both still free."""
        taken_targets = {pair.target.name for pair in self.pairs}
        taken_sources = {pair.source.name for pair in self.pairs}
        for pair in pairs:
            if pair.target.name not in taken_targets and pair.source.name not in taken_sources:
                self.pairs.append(pair)
                taken_targets.add(pair.target.name)
                taken_sources.add(pair.source.name)

    def contest(self, pairs: Sequence[Pair], prefixes: Sequence[str]) -> None:
        """Leave open which of several copies in the file fills these layers."""
        own = common_path([pair.source.name for pair in pairs])
        names = [prefix + pair.source.name[len(own) :] for prefix in prefixes for pair in pairs]
        sources = [self.sources[name] for name in dict.fromkeys(names) if name in self.sources]
        self.ambiguous.append(Group([pair.target for pair in pairs], sources, choice(prefixes), tuple(prefixes)))

    def leave_open(self, groups: Iterable[tuple[list[Layer], list[Layer], str]]) -> None:
        """Note what a rule could not decide: layers of the model, of the file, and what would settle it."""
        self.ambiguous += [Group(*group) for group in groups]

    def reopen(self, pairs: Sequence[Pair], why: str) -> None:
        """Take pairs back: the file does not decide between them."""
        gone = {id(pair) for pair in pairs}
        self.pairs = [pair for pair in self.pairs if id(pair) not in gone]
        self.ambiguous.append(Group([pair.target for pair in pairs], [pair.source for pair in pairs], why))

    @property
    def free_targets(self) -> dict[str, Layer]:
        taken = {pair.target.name for pair in self.pairs}
        taken |= {layer.name for group in self.ambiguous for layer in group.targets}
        return {name: layer for name, layer in self.targets.items() if name not in taken}

    @property
    def free_sources(self) -> dict[str, Layer]:
        taken = {pair.source.name for pair in self.pairs}
        taken |= {layer.name for group in self.ambiguous for layer in group.sources}
        taken |= {tensor.layer for pair in self.loose.values() for tensor in pair.source.tensors.values()}
        return {name: layer for name, layer in self.sources.items() if name not in taken}
