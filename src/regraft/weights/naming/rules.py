"""Reads the tables of `families` and turns the layers of either side into addresses that all dialects share.

`conv3_block2_1_conv` (Keras), `res3b_branch2a` (Caffe), `resnet_v1_50/block2/unit_2/bottleneck_v1/conv1` (TF-slim) and
`layer2.1.conv1` (torchvision, timm) all have the address `block4.1.conv`. Blocks are counted through the network, so
that `_blocks.7` and `blocks.3.1` can meet; a file whose numbers have a gap is not counted at all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import cache, cached_property
from itertools import pairwise
from typing import Any

from regraft.weights.naming.families import TABLES
from regraft.weights.naming.layers import Layer

__all__ = ["Dialect", "Family", "addresses", "begins_late", "families", "shared_prefixes", "speaks"]

# No network has more wrappers around it; a hostile file may have a thousand, and each is tried with every table.
_MAX_SHARED = 12
_DRAWN = 500
_LONG = 10_000  # of a file with more layers some are drawn: no network has so many that none is found
_MARK = re.compile(r"<(\w+(?:\+1)?)(?::([^>]*))?>")

Number = tuple[str, int]


@dataclass(frozen=True)
class Entry:
    """One line of a table: the names it speaks of, their address, and what else must (not) exist."""

    expression: str
    address: str
    condition: str = ""
    negated: bool = False

    @cached_property
    def pattern(self) -> re.Pattern[str]:
        """The expression, compiled when it is first needed: of a thousand lines one file's names are of a few."""
        return re.compile(self.expression)


@dataclass(frozen=True)
class Dialect:
    """One way to name the layers of a family.

    `sparse`: gaps in its numbers mean nothing. `scaled`: False when its normalisations have no scale. `unbiased`: its
    classifier has no bias. `own`: where both sides speak it, their names are compared as they are. `begins`: the stage
    and the block that its networks begin with; empty for zeros.
    """

    name: str
    entries: tuple[Entry, ...]
    sparse: bool = False
    scaled: bool = True
    unbiased: bool = False
    own: bool = False
    begins: tuple[Number, ...] = ()

    @cached_property
    def any_name(self) -> re.Pattern[str]:
        """What any of its lines speaks of: most names of most files are of no line."""
        names = [re.sub(r"\?P<\w+>", "?:", entry.expression) for entry in self.entries]
        return re.compile("|".join(f"(?:{name})" for name in names))


@dataclass(frozen=True)
class Family:
    """The dialects that speak of the same networks."""

    name: str
    dialects: tuple[Dialect, ...]


@cache
def families() -> tuple[Family, ...]:
    """Return all known families, in the order of the tables."""
    return tuple(Family(name, _dialects(text)) for name, text in TABLES.items())


def _dialects(text: str) -> tuple[Dialect, ...]:
    found = []
    for section in re.split(r"^\[", text, flags=re.MULTILINE)[1:]:
        title, *lines = section.strip().splitlines()
        name, _, flags = title.partition("]")
        spellings = [lines]
        if "trunk" in flags:
            spellings.append([line.replace("features.", "") for line in lines if "features." in line])
        for spelling in spellings:
            entries = tuple(_entry(line) for line in spelling if line.strip())
            words = flags.split()
            found.append(
                Dialect(
                    name,
                    entries,
                    sparse="sparse" in words,
                    scaled="unscaled" not in words,
                    unbiased="unbiased" in words,
                    own="own" in words,
                    begins=_begins(words),
                )
            )
    return tuple(found)


def _begins(flags: Sequence[str]) -> tuple[Number, ...]:
    told = next((flag.removeprefix("begins:") for flag in flags if flag.startswith("begins:")), "")
    return tuple(_number(part) for part in told.split(".")) if told else ()


def _entry(line: str) -> Entry:
    name, _, right = line.partition(" = ")
    parts = re.split(r" (if|unless) ", right.strip())
    condition = parts[2] if len(parts) == 3 else ""
    return Entry(_pattern(name.strip()), parts[0], condition, len(parts) == 3 and parts[1] == "unless")


def _pattern(name: str) -> str:
    """Return the regular expression of a name in a table."""
    pieces = []
    position = 0
    for mark in _MARK.finditer(name):
        pieces += [_literal(name[position : mark.start()]), _mark(mark[1], mark[2])]
        position = mark.end()
    return "".join([*pieces, _literal(name[position:])])


def _literal(text: str) -> str:
    text = re.sub(r"(?<![^/(])\*", r"[\\w-]+", text)
    return re.sub(r"(?<!\\)\.(?!\*)", r"\\.", text).replace("(", "(?:")


def _mark(group: str, kind: str | None) -> str:
    if kind is None:
        return rf"(?P<{group}>\d+)"
    if kind == "a":
        return rf"(?P<{group}>[a-z]\d*)"
    if kind == "?":
        return rf"(?:_(?P<{group}>\d+))?"
    return rf"(?P<{group}>{kind})" if "*" in kind else rf"(?P<{group}>[{kind}])"


@dataclass
class _Hit:
    """A layer that a line of the table speaks of."""

    layer: Layer
    entry: Entry
    groups: dict[str, str]

    @property
    def series(self) -> str:
        """Blocks are counted together, except where the kind of the layer is part of the address."""
        return self.layer_kind if "<kind>" in self.entry.address else ""

    @property
    def layer_kind(self) -> str:
        return {"norm": "norm", "dense": "dense"}.get(self.layer.kind, "conv")

    @property
    def block(self) -> tuple[Number, ...]:
        return tuple(_number(self.groups[mark]) for mark in ("s", "b") if mark in self.groups)

    @property
    def number(self) -> tuple[object, ...]:
        return _natural(self.groups["n"])

    @property
    def counted(self) -> tuple[Number, ...]:
        """The numbers by which blocks of the network are ranked; empty for what is not a block's or is one's norm."""
        if "<block>" in self.entry.address and self.series in ("", "conv"):
            return self.block
        is_block = self.entry.address.startswith("block<n>")
        return tuple(("", int(text)) for text in re.findall(r"\d+", self.groups["n"])) if is_block else ()


def addresses(layers: Mapping[str, Layer], dialect: Dialect, *, whole: bool, prefix: str = "") -> dict[str, str]:
    """Return the address of every layer that the dialect knows; empty when its numbers cannot be counted.

    Args:
        layers: The layers of one side.
        dialect: How they are named.
        whole: Whether nothing can be missing (a model): then gaps in the numbers mean nothing.
        prefix: A part that all names start with and that is not in the table.
    """
    hits = _hits(layers, dialect, prefix)
    blocks: dict[str, set[tuple[Number, ...]]] = {}
    numbers: dict[str, set[tuple[object, ...]]] = {}
    for hit in hits:
        if "<block>" in hit.entry.address:
            blocks.setdefault(hit.series, set()).add(hit.block)
        if "n" in hit.groups:
            numbers.setdefault(_stem(hit), set()).add(hit.number)
    if not whole and not dialect.sparse and not (all(map(_without_gap, blocks.values())) and _count_on(numbers)):
        return {}
    block_of = {series: _ranks(keys) for series, keys in blocks.items()}
    number_of = {stem: _ranks(keys) for stem, keys in numbers.items()}
    found: dict[str, str] = {}
    places: dict[str, int] = {}
    for hit in sorted(hits, key=lambda hit: hit.layer.order):
        values = {mark: _plain(text) for mark, text in hit.groups.items()} | {"kind": hit.layer_kind}
        values |= {f"{mark}+1": str(int(text) + 1) for mark, text in hit.groups.items() if text.isdecimal()}
        if "<block>" in hit.entry.address:
            values["block"] = str(block_of[hit.series][hit.block])
        if "n" in hit.groups:
            values["n"] = str(number_of[_stem(hit)][hit.number])
        values["at"] = str(places.get(hit.entry.address, 0))
        places[hit.entry.address] = int(values["at"]) + 1
        found[hit.layer.name] = _fill(hit.entry.address, values)
    return _unique(found)


def begins_late(layers: Mapping[str, Layer], dialect: Dialect, *, prefix: str = "") -> str:
    """Return the name of a layer in the first block of a file, where the dialect's networks have blocks before it."""
    counted = [(hit.counted, hit.layer.name) for hit in _hits(layers, dialect, prefix) if hit.counted]
    first, name = min(counted, default=((), ""))
    return name if first > (dialect.begins or (("", 0),) * len(first)) else ""


def _ranks(keys: set[Any]) -> dict[Any, int]:
    return {key: rank for rank, key in enumerate(sorted(keys))}


def _hits(layers: Mapping[str, Layer], dialect: Dialect, prefix: str) -> list[_Hit]:
    """Return the layers that the dialect knows; of those without the prefix what none with it is called (a head)."""
    if len(layers) > _LONG and not any(
        _hit(name, layer, dialect, layers, prefix) for name, layer in list(layers.items())[:: len(layers) // _DRAWN]
    ):
        return []
    hits = [(hit, name) for name, layer in layers.items() if (hit := _hit(name, layer, dialect, layers, prefix))]
    below = {id(hit.entry) for hit, name in hits if name.startswith(prefix)}
    return [hit for hit, name in hits if name.startswith(prefix) or id(hit.entry) not in below]


def speaks(layers: Mapping[str, Layer], dialect: Dialect, *, prefix: str = "") -> bool:
    """Return whether a quarter of the names, drawn evenly from a long file, are of the dialect.

    Half of all are needed to name it; a file of a million layers is not read in every dialect to find that none is.
    """
    drawn = list(layers.items())[:: max(1, len(layers) // _DRAWN)]
    return 4 * sum(_hit(name, layer, dialect, layers, prefix) is not None for name, layer in drawn) >= len(drawn)


def _hit(name: str, layer: Layer, dialect: Dialect, layers: Mapping[str, Layer], prefix: str) -> _Hit | None:
    name = name.removeprefix(prefix)
    if dialect.any_name.fullmatch(name) is None:
        return None
    for entry in dialect.entries:
        match = entry.pattern.fullmatch(name)
        if match:
            groups = {mark: text or "0" for mark, text in match.groupdict().items()}
            if not entry.condition or _exists(prefix + _fill(entry.condition, groups), layers) != entry.negated:
                return _Hit(layer, entry, groups)
    return None


def _exists(name: str, layers: Mapping[str, Layer]) -> bool:
    return name in layers or ("*" in name and any(fnmatchcase(other, name) for other in layers))


def _fill(text: str, values: Mapping[str, str]) -> str:
    return _MARK.sub(lambda mark: values.get(mark[1], mark[0]), text)


def _stem(hit: _Hit) -> str:
    return hit.entry.address.partition("<")[0] + hit.entry.address.rpartition(">")[2]


def _number(text: str) -> Number:
    """Turn `b12` into ("b", 12), `3` -> ("", 3), `a` -> ("a", 0)."""
    letters = text.rstrip("0123456789")
    return letters, int(text[len(letters) :] or 0)


def _plain(text: str) -> str:
    return str(ord(text) - ord("a") + 1) if len(text) == 1 and text.isalpha() else text


def _natural(text: str) -> tuple[object, ...]:
    pieces = re.split(r"(\d+)", text)
    return tuple(int(piece) if place % 2 else piece for place, piece in enumerate(pieces))


def _without_gap(keys: set[tuple[Number, ...]]) -> bool:
    """Return whether numbers run on: stages one by one, and in every stage the blocks from the number where all
    start.
    """
    by_stage: dict[tuple[Number, ...], list[Number]] = {}
    for key in keys:
        by_stage.setdefault(key[:-1], []).append(key[-1])
    stages = sorted(stage[0][1] for stage in by_stage if stage)
    if stages and stages != list(range(stages[0], stages[0] + len(stages))):
        return False
    starts = {min(blocks) for blocks in by_stage.values()}
    return len(starts) <= 1 and all(_runs_on(sorted(blocks)) for blocks in by_stage.values())


def _count_on(numbers: Mapping[str, set[tuple[object, ...]]]) -> bool:
    """Return whether plain counters (`conv2d_3`) lack no number."""
    for keys in numbers.values():
        counted = sorted(key[1] for key in keys if len(key) == 3 and isinstance(key[1], int) and key[0] == key[2] == "")
        if len(counted) == len(keys) and counted[-1] - counted[0] != len(counted) - 1:
            return False
    return True


def _runs_on(blocks: list[Number]) -> bool:
    """Return whether the blocks are numbered without a gap: 1, 2, 3 or a, b, c or a, b1, b2."""
    for before, after in pairwise(blocks):
        if before[0] == after[0]:
            step = after[1] - before[1]
        else:
            step = ord(after[0]) - ord(before[0]) if len(after[0]) == len(before[0]) == 1 and after[1] <= 1 else 0
        if step != 1:
            return False
    return True


def _unique(found: Mapping[str, str]) -> dict[str, str]:
    """Drop the addresses that two layers claim: the names do not decide there."""
    counts: dict[str, int] = {}
    for address in found.values():
        counts[address] = counts.get(address, 0) + 1
    return {name: address for name, address in found.items() if counts[address] == 1}


def shared_prefixes(names: Sequence[str], *, least: float = 0.3) -> list[str]:
    """Return leading path parts, with their separator, that at least this share of the names start with; the longest
    last.
    """
    counts: dict[str, int] = {}
    for name in names:
        for mark in re.finditer(r"[/.]", name):
            part = name[: mark.end()]
            counts[part] = counts.get(part, 0) + 1
    shared = sorted((part for part, count in counts.items() if count >= least * len(names)), key=len)
    return ["", *shared[:_MAX_SHARED]]
