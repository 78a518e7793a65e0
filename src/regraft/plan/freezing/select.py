"""The selector language: which layers `block5`, `last:26`, `from:block5_conv1` or `type:BatchNorm2d` mean.

    head  backbone  all  none      a part of the model; everything; nothing
    encoder  decoder               of a network for segmentation: its backbone; what lies between that and the head
    layer4  layer4.2.conv3         a module: itself and all inside it
    block5_conv1  res5c_branch2c   a layer by its name in Keras; `conv5_block3`, `res5c` all layers of that block
    block5  stage:-1  stage:-2:    a block, or resolution stages (0 is the first, -1 the last; slices work)
    layer4.*  *.bn?  /regex/       globs over the whole name, regular expressions anywhere in it
    last:26  first:3  [7]  [:-26]  by index in the backbone's own listing (`regraft inspect`), no decoder, no head
    from:NAME  until:NAME          from that layer to the end of its part; from the start to that layer, itself included
    type:BatchNorm2d               a module class, its subclasses too; globs work
    a,b  !b                        unions; `!` excludes, in any position; only `!` terms start from everything

A selector names layers: modules that own parameters or buffers.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase
from typing import TypeVar

from torch import nn

from regraft.errors import RegraftError, SettingsError, nearest
from regraft.models.describe.info import is_under
from regraft.models.describe.trace import plain
from regraft.models.keras.layer import kind_of
from regraft.models.layers.layers import Layer
from regraft.plan.freezing.listing import ROOT, Listing, owning
from regraft.wording import quantity

__all__ = ["select", "stage_spans", "terms_of"]

T = TypeVar("T")
_SLICE = re.compile(r"\[?(-?\d+)?(?:(:)(-?\d+)?(?::(-?\d+)?)?)?\]?")


class _NoMatchError(RegraftError):
    """One term that matches nothing; collected, so that all wrong terms are reported at once."""


def select(model: nn.Module, selector: str | Sequence[str]) -> frozenset[str]:
    """Return the full names of the layers that a selector means.

    Args:
        model: Any module (inside DDP or `torch.compile` wrappers too: names are the inner module's).
        selector: One string, with commas between terms, or a sequence of such strings.

    Returns:
        Names of modules that own parameters or buffers; "" is the model itself. Empty only for `none`.

    Raises:
        SettingsError: A term matches no layer (the nearest names are given), or is malformed.
    """
    terms = terms_of(selector)
    if not terms:
        raise SettingsError("The selector is empty.", "", "write `none` to select nothing")
    finder = _Finder(Listing(plain(model)))
    taken: set[str] = set()
    left_out: set[str] = set()
    mistakes: list[_NoMatchError] = []
    for term in terms:
        try:
            found = finder.find(term.removeprefix("!").strip())
        except _NoMatchError as mistake:
            mistakes.append(mistake)
            continue
        (left_out if term.startswith("!") else taken).update(found)
    _raise_all(mistakes, finder.architecture)
    if all(term.startswith("!") for term in terms):
        taken = set(finder.find("all"))
    return frozenset(taken - left_out)


def terms_of(selector: str | Sequence[str]) -> list[str]:
    """Split a selector into terms; commas inside /regular expressions/ and [slices] do not split."""
    texts = [selector] if isinstance(selector, str) else list(selector)
    terms: list[str] = []
    for text in texts:
        if not isinstance(text, str):
            raise SettingsError(f"A selector has the term {text!r}, which is not a string.", "", "put it in quotes")
        terms += [term.strip() for term in _split(text) if term.strip()]
    return terms


def stage_spans(model: nn.Module) -> list[tuple[str, ...]]:
    """Return the backbone's layers by resolution stage, finest first; what follows the last stage belongs to it."""
    return [tuple(span) for span in Listing(plain(model)).spans()]


def _split(text: str) -> list[str]:
    if re.fullmatch(r"\s*!?\s*/.*/\s*", text) and not re.search(r"/\s*,", text):
        return [text]
    return re.findall(r"!?\s*/(?:[^/\\]|\\.)*/|!?\s*\[[^\]]*\]|[^,]+", text)


def _raise_all(mistakes: Sequence[_NoMatchError], architecture: str) -> None:
    if not mistakes:
        return
    if len(mistakes) == 1:
        only = mistakes[0]
        raise SettingsError(only.what, only.expected, only.next_step)
    raise SettingsError(
        f"{len(mistakes)} terms of the selector match nothing in {architecture}.",
        "",
        "`regraft inspect MODEL` for the names",
        details=[mistake.what for mistake in mistakes],
    )


class _Finder:
    """What each kind of term selects from a model's layers."""

    def __init__(self, listing: Listing) -> None:
        self.listing = listing
        self.backbone = listing.backbone
        self.architecture = listing.info.architecture
        self.words: dict[str, Callable[[], list[str]]] = {
            "all": lambda: listing.owners,
            "none": list,
            "head": lambda: owning(listing.part("head")),
            "backbone": lambda: owning(self.backbone),
        }
        if listing.info.decoder:
            self.words |= {"encoder": self.words["backbone"], "decoder": lambda: owning(listing.part("decoder"))}
        self.prefixes: dict[str, Callable[[str], list[str]]] = {
            "last": self._last,
            "first": self._first,
            "stage": self._stages,
            "from": self._from,
            "until": self._until,
            "type": self._type,
        }

    def find(self, term: str) -> list[str]:
        """Return the layers of one term without its `!`; raise _NoMatchError when there are none."""
        if term in self.words:
            return self._some(self.words[term](), term) if term != "none" else []
        prefix, colon, rest = term.partition(":")
        if colon and prefix in self.prefixes:
            return self._some(self.prefixes[prefix](rest.strip()), term)
        if len(term) > 1 and term[0] == term[-1] == "/":
            return self._some(self._regex(term[1:-1]), term)
        if term.startswith("[") and term.endswith("]") and _SLICE.fullmatch(term):
            return self._some(owning(_cut(self.backbone, term, term, "layers of the backbone")), term)
        return self._some(self._named(term), term)

    def _some(self, found: list[str], term: str) -> list[str]:
        if found:
            return found
        raise _NoMatchError(
            f"{term!r} matches no layer of {self.architecture} with weights.",
            "",
            "`regraft inspect MODEL` for the names",
        )

    def _last(self, number: str) -> list[str]:
        count = _count(number, "last", len(self.backbone))
        return owning(self.backbone[len(self.backbone) - count :])

    def _first(self, number: str) -> list[str]:
        return owning(self.backbone[: _count(number, "first", len(self.backbone))])

    def _stages(self, text: str) -> list[str]:
        if not re.fullmatch(r"\[?-?\d*(:-?\d*)?\]?", text) or not re.search(r"\d", text):
            raise _malformed(f"stage:{text}", "a number or a slice, such as `stage:-1` and `stage:-2:`")
        return [name for span in _cut(self.listing.spans(), text, f"stage:{text}", "stages") for name in span]

    def _from(self, word: str) -> list[str]:
        rows, first, _ = self._anchor(word)
        return owning(rows[first:])

    def _until(self, word: str) -> list[str]:
        rows, _, stop = self._anchor(word)
        parts = ("backbone", "decoder", "head")
        before = [name for part in parts[: parts.index(rows[0].part)] for name in owning(self.listing.part(part))]
        return before + owning(rows[:stop])

    def _anchor(self, word: str) -> tuple[list[Layer], int, int]:
        """Return the part that a name lies in, its first row there, and the row after its last one."""
        parts = [rows for rows in map(self.listing.part, ("backbone", "decoder", "head")) if rows]
        for rows in parts:
            if hits := [row for row, layer in enumerate(rows) if word in (layer.name, *layer.aliases)]:
                return rows, hits[0], hits[-1] + 1
        if anchor := self._weightless(word):
            return anchor
        names = set(self.find(word))
        rows = next(rows for rows in parts if any(names.intersection(layer.modules) for layer in rows))
        hits = [row for row, layer in enumerate(rows) if names.intersection(layer.modules)]
        return rows, hits[0], hits[-1] + 1

    def _weightless(self, word: str) -> tuple[list[Layer], int, int] | None:
        """Locate a layer without weights, such as an activation, between the rows of the backbone."""
        calls = self.listing.calls
        known = [name for name in calls if word == name or word in self.listing.aliases.get(name, ())]
        if not known or any(is_under(owner, known) for owner in self.listing.owners):
            return None
        tick = calls[known[0]].start
        row = sum(1 for layer in self.backbone if layer.name in calls and calls[layer.name].start < tick)
        return self.backbone, row, row

    def _type(self, pattern: str) -> list[str]:
        found = [
            name
            for name in self.listing.owners
            if any(fnmatchcase(kind, pattern) for kind in _kinds(self.listing.modules[name]))
        ]
        if found:
            return found
        kinds = sorted({kind_of(self.listing.modules[name]) for name in self.listing.owners})
        raise _unknown(f"type:{pattern}", nearest(pattern, kinds), "layer of type", self.architecture)

    def _regex(self, pattern: str) -> list[str]:
        try:
            found = re.compile(pattern)
        except re.error as error:
            raise _malformed(f"/{pattern}/", f"It is not a regular expression: {error}.") from None
        return [name for name in self.listing.owners if any(found.search(text) for text in self.listing.names(name))]

    def _named(self, word: str) -> list[str]:
        listing = self.listing
        if any(sign in word for sign in "*?["):
            return [name for name in listing.owners if any(fnmatchcase(text, word) for text in listing.names(name))]
        if word == ROOT:
            return [name for name in listing.owners if name == ""]
        found = listing.find(word)
        if found or word in listing.known:
            return found
        prefix, colon, rest = word.partition(":")
        alike = [f"{other}:{rest}" for other in self.prefixes if nearest(prefix, [other])] if colon else []
        near = nearest(word, alike, limit=1) if alike else nearest(word, _once([*listing.known, *self.words]))
        raise _unknown(word, near, "layer", self.architecture)


def _kinds(module: nn.Module) -> list[str]:
    """List the names of a module's class and base classes; for a Keras layer, Keras's name first."""
    return [kind_of(module), *(kind.__name__ for kind in type(module).__mro__[:-2])]


def _count(text: str, word: str, limit: int) -> int:
    if not re.fullmatch(r"\d+", text) or int(text) == 0:
        raise _malformed(f"{word}:{text}", f"a number of layers, such as `{word}:26`")
    if int(text) > limit:
        raise _malformed(f"{word}:{text}", f"at most {limit}: the backbone has {quantity(limit, 'layer')}")
    return int(text)


def _cut(rows: Sequence[T], text: str, term: str, noun: str) -> list[T]:
    match = _SLICE.fullmatch(text)
    if match is None:
        raise _malformed(term, "a slice as in Python, such as `[:-26]`")
    start, colon, stop, step = match.groups()
    if step is not None and int(step) == 0:
        raise _malformed(term, "a step of a slice other than zero")
    if colon:
        return list(rows[slice(*(None if n is None else int(n) for n in (start, stop, step)))])
    if start is None or not -len(rows) <= int(start) < len(rows):
        raise _malformed(term, f"a position among {len(rows)} {noun}")
    return [rows[int(start)]]


def _malformed(term: str, expected: str) -> _NoMatchError:
    return _NoMatchError(f"{term!r} selects nothing.", expected, "`regraft inspect MODEL` for the listing")


def _once(names: Sequence[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _unknown(term: str, near: str, noun: str, architecture: str) -> _NoMatchError:
    return _NoMatchError(
        f"{term!r} matches no {noun} in {architecture}{f'; did you mean {near}?' if near else '.'}",
        next_step="" if near else "`regraft inspect MODEL` for the names",
    )
