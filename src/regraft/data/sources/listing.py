"""What every source layout hands over: columns of paths and labels for each split, and what was left aside."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from regraft.data.class_table import ClassTable

__all__ = ["SPLIT_WORDS", "Listing", "Rows", "folded", "looks_of", "quoted", "twin_warnings"]

_FILLERS = "\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0\ufe0e\ufe0f"  # letters and marks that are drawn as nothing
# Small Cyrillic letters, and a Greek one, that are drawn as Latin ones.
_LATIN = str.maketrans(
    "\u0430\u0441\u0435\u04bb\u0456\u0458\u043e\u051b\u0440\u0455\u051d\u0445\u0443\u03bf", "acehijoqpswxyo"
)
_DECIMAL = re.compile(r"\d{1,15}(\.\d{1,15})?")
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
    """Yield a sentence for each group of class names that differ only in how they are written."""
    groups: dict[str, list[str]] = {}
    for name in class_names:
        groups.setdefault(looks_of(name), []).append(name)
    for group in groups.values():
        if len(group) > 1:
            yield f"The classes {quoted(group)} differ only in how they are written; they are kept apart."


def folded(name: str) -> str:
    """Return a name without what is easily mistaken: upper and lower case, composed and decomposed accents."""
    return unicodedata.normalize("NFC", name).casefold()


def looks_of(name: str) -> str:
    """Return a name as it looks: without invisible characters, and all kinds and numbers of spaces as one; numbers by
    value.

    Letters of other alphabets that are drawn as Latin ones are those.

    Names that look alike may still be different names: joiners change words in some scripts.
    """
    visible = "".join(" " if sign.isspace() else sign for sign in name if not _is_invisible(sign))
    text = folded(unicodedata.normalize("NFKC", " ".join(visible.split()))).translate(_LATIN)
    return repr(float(text)) if _DECIMAL.fullmatch(text) else text


def _is_invisible(sign: str) -> bool:
    """Return whether a character shows nothing: zero-width ones, soft hyphens, marks of direction and of byte order."""
    return (unicodedata.category(sign) in ("Cf", "Cc") and not sign.isspace()) or sign in _FILLERS


def quoted(names: Iterable[str], most: int = 20) -> str:
    """Return names for a sentence; of many, the first ones and how many more there are."""
    listed = [repr(name) for name in names]
    return ", ".join(listed[:most]) + (f" and {len(listed) - most} more" if len(listed) > most else "")
