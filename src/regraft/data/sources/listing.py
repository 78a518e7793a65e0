"""What every source layout hands over: columns of paths and labels for each split, and what was left aside."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["Listing"]


@dataclass(frozen=True)
class Listing:
    """The labelled files of one source, before anything is decoded.

    `rows` maps a split name to (paths, label numbers into `class_names`); the split named "" still has to be divided.
    """

    root: str
    class_names: tuple[str, ...]
    rows: dict[str, tuple[list[str], list[int]]]
    warnings: tuple[str, ...] = ()
    ignored: dict[str, int] = field(default_factory=dict)
