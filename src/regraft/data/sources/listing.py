"""What every source layout hands over: columns of paths and labels for each split, and what was left aside."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from regraft.data.class_table import ClassTable

__all__ = ["SPLIT_WORDS", "Listing", "Rows", "folded", "quoted", "twin_warnings"]

SPLIT_WORDS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


Rows = Mapping[str, tuple[Sequence[str], Sequence[int] | Sequence[list[int]]]]


@dataclass(frozen=True)
class Listing:
    """The labelled files of one source, before anything is decoded.

    `rows` maps a split name to (paths, labels); the split named "" still has to be divided. A label is a position in
    `class_names`, or a list of them where `multilabel` says that an image may have any number of classes. Paths that
    are written somewhere are relative to `root`; `listed` says that the splits come from a list, not from folders. In
    segmentation each split has as many masks as images, no labels, and there is a class table.
    """

    root: str
    class_names: tuple[str, ...]
    rows: Rows
    warnings: tuple[str, ...] = ()
    ignored: dict[str, int] = field(default_factory=dict)
    multilabel: bool = False
    listed: bool = False
    masks: Mapping[str, list[str]] = field(default_factory=dict)
    class_table: ClassTable | None = None


def twin_warnings(class_names: Iterable[str]) -> Iterator[str]:
    """A sentence for each group of class names that differ only in how they are written."""
    groups: dict[str, list[str]] = {}
    for name in class_names:
        groups.setdefault(folded(name), []).append(name)
    for group in groups.values():
        if len(group) > 1:
            yield f"The classes {quoted(group)} differ only in how they are written; they are kept apart."


def folded(name: str) -> str:
    """A name without what is easily mistaken: upper and lower case, composed and decomposed accents."""
    return unicodedata.normalize("NFC", name).casefold()


def quoted(names: Iterable[str], most: int = 20) -> str:
    """Names for a sentence; of many, the first ones and how many more there are."""
    listed = [repr(name) for name in names]
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")
