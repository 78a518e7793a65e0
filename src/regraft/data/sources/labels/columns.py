"""Which column of a table is the path, which the label and which the split."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from regraft.data.sources.labels.flags import FlagColumns, survey
from regraft.data.sources.listing import SPLIT_WORDS

__all__ = ["LABELS", "Columns", "choose_columns"]

_PATHS = (
    *("path", "filepath", "file_path", "image_path", "img_path", "filename", "file_name", "image_name", "img_name"),
    *("file", "image", "img", "photo", "picture", "fname", "image_id", "img_id", "id", "name"),
)
LABELS = ("label", "class", "target", "category", "y", "class_name", "label_name", "classname", "species", "breed")
_MANY = ("labels", "tags", "classes", "categories", "targets", "attributes")
_SPLITS = ("split", "subset", "set", "fold", "partition", "is_valid", "is_val")
_IS_VAL = {"0": "train", "1": "val", "0.0": "train", "1.0": "val", "false": "train", "true": "val"}


@dataclass(frozen=True)
class Columns:
    """Positions of the columns that count.

    Attributes:
        names: Of all columns.
        path: The column of paths.
        label: The column of labels; None where each class has a column of its own.
        many: Whether that column may hold any number of labels.
        flags: The columns of zeros and ones, one for each class.
        no: How these write no, where they never write 0 (see `FlagColumns`).
        split: The column of splits, where there is one.
        splits: What its words mean.
        unused: The names of the others.
    """

    names: tuple[str, ...]
    path: int
    label: int | None
    many: bool = False
    flags: tuple[int, ...] = ()
    no: str | None = None
    split: int | None = None
    splits: tuple[tuple[str, str], ...] = tuple(SPLIT_WORDS.items())
    unused: tuple[str, ...] = ()

    @property
    def last(self) -> int:
        """The last column that counts."""
        return max(place for place in (self.path, self.label, self.split, *self.flags) if place is not None)


def choose_columns(
    header: Sequence[str], first: Sequence[str], flags_among: Callable[[Sequence[int]], FlagColumns] | None = None
) -> Columns | str:
    """Return the columns of a table by their names, and by what they hold where each class may have its own.

    Args:
        header: The names.
        first: The first row.
        flags_among: Which of some columns hold zeros and ones; None judges by the first row.

    Returns:
        The columns, or why the header does not say them; an empty text where no column is called like a path.
    """
    names = [_plain(name) for name in header]
    path = _first(names, _PATHS, ())
    if path is None:
        return ""
    split = _first(names, _SPLITS, (path,))
    if split is not None and names[split] in ("fold", "partition") and split < len(first) and first[split].isdecimal():
        split = None  # numbers of folds or parts are no names of splits
    label = _first(names, LABELS, (path, split))
    many = label is None
    if many:
        label = _first(names, _MANY, (path, split))
    others = [place for place, name in enumerate(names) if place not in (path, split, label) and not _is_index(name)]
    flags: tuple[int, ...] = ()
    no: str | None = None
    if label is None and len(others) == 1 and names[others[0]] not in _SPLITS:
        label, many = others.pop(), False
    elif label is None:
        found = survey([first], others) if flags_among is None else flags_among(others)
        flags, no = tuple(sorted(found.places)), found.no
        if len(flags) < 2:
            return "no column has a name such as label, and there are no columns of zeros and ones"
    for place in (path, split, label):
        if place is not None and names.count(names[place]) > 1:
            return f"two columns are called {header[place]!r}"
    unused = tuple(header[place] for place in sorted(set(others) - set(flags)))
    return Columns(tuple(header), path, label, many, flags, no, split, _words(names, split), unused)


def _words(names: Sequence[str], split: int | None) -> tuple[tuple[str, str], ...]:
    if split is not None and names[split] in ("is_valid", "is_val"):
        return tuple(_IS_VAL.items())
    return tuple(SPLIT_WORDS.items())


def _first(names: Sequence[str], wanted: Sequence[str], taken: Sequence[int | None]) -> int | None:
    """Return the column whose name comes first among the wanted ones."""
    places = {name: place for place, name in reversed(list(enumerate(names))) if place not in taken}
    return next((places[name] for name in wanted if name in places), None)


def _is_index(name: str) -> bool:
    """Return whether a column is the row numbers that pandas writes."""
    return not name or name.startswith("unnamed:")


def _plain(name: str) -> str:
    return re.sub(r"[\s\-.]+", "_", name.strip().lower())
