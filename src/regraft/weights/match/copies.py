"""A second network of the same shape in one file: MoCo's two encoders, student and teacher, left and right."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from regraft.weights.naming.layers import Layer
from regraft.weights.naming.naming import Pair
from regraft.weights.words import MOST_NAMED, some

__all__ = ["choice", "common_path", "other_copies"]

_LEAST_SHARE = 0.9  # of the layers: the copies may have different heads
_NUM_ANCHORS = 5


def other_copies(pairs: Sequence[Pair], sources: Mapping[str, Layer]) -> list[str]:
    """Return the prefixes of all copies of these pairs' layers in the file, the pairs' own one first.

    Args:
        pairs: What one rule found.
        sources: The file's layers that are not placed (those of the pairs may be among them).

    Returns:
        An empty list where there is no other copy.
    """
    found = _copies_below(common_path([pair.source.name for pair in pairs]), pairs, sources) if len(pairs) > 1 else []
    if found or len(pairs) < 2:
        return found
    found = _copies_below(main_path([pair.source.name for pair in pairs]), pairs, sources)
    shared = _shared_end(found)  # what all have in common below their prefixes is a part of the network
    return [prefix[: len(prefix) - shared] for prefix in found]


def _copies_below(own: str, pairs: Sequence[Pair], sources: Mapping[str, Layer]) -> list[str]:
    names = [pair.source.name for pair in pairs]
    tails = {
        name[len(own) :]: pair.source.signature for name, pair in zip(names, pairs, strict=True) if name.startswith(own)
    }
    paired = set(names)
    free = {name: layer for name, layer in sources.items() if name not in paired}
    others = [
        prefix
        for prefix in _prefixes(_anchors(list(tails)), free)
        if sum(prefix + tail in free and free[prefix + tail].signature == kind for tail, kind in tails.items())
        >= _LEAST_SHARE * len(tails)
    ]
    return [own, *others] if others else []


def common_path(names: Sequence[str]) -> str:
    """Return the longest leading part, with its separator, that all names have; never the whole of a name."""
    first, last = min(names), max(names)
    length = next((at for at, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), len(first))
    return first[: max(first.rfind(".", 0, length), first.rfind("/", 0, length)) + 1]


def main_path(names: Sequence[str]) -> str:
    """Return the longest leading part, with its separator, that nearly all names have: a head may stand outside."""
    counts = Counter(name[: mark.end()] for name in names for mark in re.finditer(r"[./]", name))
    return max((path for path, count in counts.items() if count >= _LEAST_SHARE * len(names)), key=len, default="")


def _shared_end(prefixes: Sequence[str]) -> int:
    """Return the length of the common end of all prefixes, in whole parts of a path."""
    ends = [prefix[::-1] for prefix in prefixes]
    if not ends:
        return 0
    first, last = min(ends), max(ends)
    length = next((at for at, (one, other) in enumerate(zip(first, last, strict=False)) if one != other), len(first))
    if any(len(end) == length for end in ends):
        return length
    return max(first.rfind(".", 0, length), first.rfind("/", 0, length), 0)


def _anchors(tails: Sequence[str]) -> list[str]:
    """Return a few tails to find other prefixes by: a head may lack in one copy, a layer in another."""
    step = max(1, len(tails) // _NUM_ANCHORS)
    return list(dict.fromkeys(tails[::step]))


def _prefixes(anchors: Iterable[str], free: Mapping[str, Layer]) -> list[str]:
    found: dict[str, None] = {}
    for tail in anchors:
        for name in free:
            if name.endswith(tail):
                prefix = name[: -len(tail)]
                if not prefix or prefix[-1] in "./":
                    found[prefix] = None
    return list(found)


def choice(prefixes: Sequence[str]) -> str:
    """Return the sentence that names what to type to choose one of the copies."""
    names = [re.sub(r"[./]+$", "", prefix) for prefix in prefixes]
    quoted = [repr(name) if name else "no prefix" for name in names]
    typed = " or ".join(f"--from {name}" for name in names[:MOST_NAMED] if name)
    named = " and ".join(quoted) if len(names) <= MOST_NAMED else some(quoted)
    left_out = next(prefix for prefix in prefixes if prefix)
    return (
        f"the file holds {len(names)} networks of this shape, under {named}: choose one with {typed} "
        f"(Python: key={next(name for name in names if name)!r}), or leave one out with --skip '{left_out}*'"
    )
