"""Many archives that are one data set: patterns of their names, such as `data-{000..099}.tar`."""

from __future__ import annotations

import glob
import os
import re

from regraft.data.files.archive_kinds import archive_kind

__all__ = ["archives_like", "expanded", "is_pattern", "looks_packed"]

_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")
_ENDS = (".tar", ".tar.gz", ".tgz", ".zip", ".parquet", ".arrow")
_MOST = 100_000


def is_pattern(text: str) -> bool:
    """Return whether a path names several files: by braces, or by *, ? and []."""
    return glob.has_magic(text) or any(
        "," in match[1] or _RANGE.fullmatch(match[1]) for match in _BRACES.finditer(text)
    )


def expanded(text: str) -> list[str]:
    """Return what a path with braces names, in the order of the braces: `{000..099}` and `{train,val}`."""
    match = _BRACES.search(text)
    if match is None:
        return [text]
    span = _RANGE.fullmatch(match[1])
    if span is not None:
        first, last = int(span[1]), int(span[2])
        width = len(span[1]) if span[1].startswith("0") or len(span[1]) == len(span[2]) else 0
        inner = [f"{number:0{width}}" for number in range(first, min(last, first + _MOST) + 1)]
    else:
        inner = match[1].split(",")
    ends = expanded(text[match.end() :])
    return [text[: match.start()] + part + end for part in inner for end in ends]


def looks_packed(name: str) -> bool:
    """Return whether a file is called like an archive that is read in place."""
    return name.lower().endswith(_ENDS)


def archives_like(pattern: str) -> tuple[list[str], list[str]]:
    """Return the archives that a pattern names, in its order, and the names of it that are not there."""
    found, lost = [], []
    for text in expanded(pattern):
        paths = sorted(glob.glob(text, recursive=True)) if glob.has_magic(text) else [text]
        found += [path for path in paths if os.path.isfile(path) and archive_kind(path) is not None]
        lost += [path for path in paths if not os.path.isfile(path)]
    return found, lost
