"""The names of layers, read as paths: their parts, and the numbers and letters that count them."""

from __future__ import annotations

import re
from collections.abc import Sequence

__all__ = ["Path", "common_parts", "counted", "dotted", "numbers_of", "parts_of"]

Path = tuple[str, ...]

# A number, or a single letter behind a sign or a number: `conv_a`, `res4b`, `branch2a`.
_COUNT = r"\d+|(?<=[_\-\d])[A-Za-z](?![A-Za-z\d])"
_COUNTED = re.compile(rf"(.*?)({_COUNT})")


def parts_of(name: str) -> Path:
    """Return the parts of a path: `layer1/0.conv` has three."""
    return tuple(part for part in re.split(r"[./#]", name) if part)


def dotted(name: str) -> str:
    """Return the name with dots alone between its parts."""
    return name.replace("/", ".")


def common_parts(paths: Sequence[Path]) -> Path:
    """Return the longest beginning that all paths have."""
    if not paths:
        return ()
    first, last = min(paths), max(paths)
    depth = 0
    while depth < min(len(first), len(last)) and first[depth] == last[depth]:
        depth += 1
    return first[:depth]


def counted(part: str) -> tuple[str, int] | None:
    """Return the stem and the number (or letter) of a numbered part of a path; None for a part without one."""
    found = _COUNTED.fullmatch(part)
    if found is None:
        return None
    stem, count = found[1], found[2]
    return (stem, int(count)) if count.isdecimal() else (f"{stem}a-z" if count.islower() else f"{stem}A-Z", ord(count))


def numbers_of(name: str) -> tuple[str, tuple[int, ...]]:
    """Return a name with `#` for each of its numbers and counting letters, and what they are."""
    counts = [int(count) if count.isdecimal() else ord(count) for count in re.findall(_COUNT, name)]
    return re.sub(_COUNT, "#", name), tuple(counts)
