"""From the rows of lists to a listing: files that exist, classes that are known, and every contradiction told."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from regraft.data.sources.bad_rows import BadRows
from regraft.data.sources.labels.label_cells import Column, Reading, read_cells
from regraft.data.sources.labels.locate import Locator
from regraft.data.sources.listing import Listing, Rows, quoted, twin_warnings
from regraft.errors import nearest
from regraft.wording import quantity

__all__ = ["Names", "Record", "list_records"]

_WHOLE = re.compile(r"0|[1-9][0-9]{0,8}")
_NUMBER = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_FEW = 3
_FEW_NUMBERS = 10  # whole numbers of which nobody thinks as measurements


class Record(NamedTuple):
    """One row: where it stands, the path as it is written, its labels, and its split ("" for none).

    A text as label is not read yet (`a|b` are two labels); with `flags` the label is a tuple of all labels of the
    image: of those classes whose own column has a 1, or, with a column, of what a label tool says.
    """

    file: Path
    row: int
    path: str
    label: str | tuple[str, ...]
    split: str
    near: str = ""  # the name of a folder that the images of this list may lie in
    flags: bool = False
    column: Column | None = None  # of the label


_Row = tuple[Record, tuple[str, ...]]  # with its labels as names


class Names(NamedTuple):
    """What stands for numbers, from a file beside the list or one that was given.

    Where it was given, labels that are words must be among them too.
    """

    file: Path
    names: dict[int, str]
    given: bool


def list_records(
    records: Iterable[Record], root: str, locator: Locator, bad: BadRows, names: Names | None, *, for_training: bool
) -> Listing:
    """Return the rows as a listing; mistakes in them are reported to `bad`.

    Args:
        records: All rows of all lists of the source.
        root: What paths are relative to where they are written.
        locator: Finds their files.
        bad: Where bad rows go; the listing is of use only when there are none.
        names: The names for numbers, where there is a file of them.
        for_training: Whether the classes must be enough to train on.
    """
    found = list(_with_files(records, locator, bad))
    labels, multilabel, told = _labels(found, bad)
    if not multilabel:
        for record, own in zip(found, labels, strict=True):
            if not own:
                bad.add(record.file, record.row, "rows without a label", f"{record.path!r} has no label")
    class_names = _named(found, labels, names, bad)
    kept, warnings = _without_repeats(found, labels, bad)
    warnings = [*told, *_number_warnings(found, labels, names, multilabel=multilabel), *warnings]
    rows = _columns(kept, class_names, multilabel=multilabel)
    if not len(bad):
        _check_classes(kept, class_names, bad, for_training=for_training)
    if found and not multilabel and found[0].flags and found[0].column is None:
        warnings.append("Every row has a single 1, so each image has one label.")
    warnings += _label_warnings(kept, class_names, names)
    warnings += _path_warnings(locator)
    return Listing(
        root, class_names, rows, (*twin_warnings(class_names), *warnings), multilabel=multilabel, listed="" not in rows
    )


def _with_files(records: Iterable[Record], locator: Locator, bad: BadRows) -> Iterator[Record]:
    for record in records:
        if not record.path:
            bad.add(record.file, record.row, "rows without a path", "has no path")
            continue
        path, reason = locator.find(record.path, record.near)
        if path:
            yield record._replace(path=path)
        else:
            written = record.path
            bad.add(record.file, record.row, "missing files", reason or (lambda: locator.hint(written)))  # noqa: B023


def _labels(found: Sequence[Record], bad: BadRows) -> tuple[list[tuple[str, ...]], bool, list[str]]:
    """Return the labels of each row, whether images may have several, and what people should know of how they were
    read.
    """
    readings: dict[Column, Reading] = {}
    for column in dict.fromkeys(_column(record) for record in found if isinstance(record.label, str)):
        cells = {record.label for record in found if isinstance(record.label, str) and _column(record) == column}
        readings[column] = read_cells(cells, column)
    labels = []
    for record in found:
        own = record.label if isinstance(record.label, tuple) else readings[_column(record)].labels(record.label)
        if own is None:
            bad.add(record.file, record.row, "cells that are not lists", f"{record.label!r} is not a list of labels")
        labels.append(tuple(own or ()))
    # Columns of zeros and ones with a single one in each row say one label.
    several = any(len(record.label) != 1 for record in found if record.flags)
    several = several or any(reading.several for reading in readings.values())
    return labels, several, [text for reading in readings.values() for text in reading.warnings]


def _column(record: Record) -> Column:
    return record.column or Column("", many=False)


def _named(
    found: Sequence[Record], labels: list[tuple[str, ...]], names: Names | None, bad: BadRows
) -> tuple[str, ...]:
    """Return the classes in order; labels that are numbers become their names, in place."""
    used = {label for own in labels for label in own}
    numbers = bool(used) and all(_WHOLE.fullmatch(label) for label in used)
    if names is None or not (numbers or names.given):
        return tuple(sorted(used, key=int) if numbers else sorted(used))
    if numbers:
        name_of = {label: names.names[int(label)] for label in used if int(label) in names.names}
    else:
        name_of = {label: label for label in used & set(names.names.values())}
    for place, own in enumerate(labels):
        for label in own:
            if label not in name_of:
                reason = _unknown(label, names, numbers=numbers)
                bad.add(found[place].file, found[place].row, "labels that are not in the names file", reason)
        labels[place] = tuple(name_of[label] for label in own if label in name_of)
    occurring = set(name_of.values())
    return tuple(name for name in names.names.values() if name in occurring)


def _unknown(label: str, names: Names, *, numbers: bool) -> str:
    if numbers:
        known = f"{names.file.name} has names for {min(names.names)} to {max(names.names)}"
        hint = " (do the labels count from 1?)" if int(label) == len(names.names) else ""
        return f"the label is {label}, and {known}{hint}"
    near = nearest(label, tuple(names.names.values()), limit=1)
    return f"{label!r} is not in {names.file.name}" + (f"; did you mean {near}" if near else "")


def _without_repeats(
    found: Sequence[Record], labels: Sequence[tuple[str, ...]], bad: BadRows
) -> tuple[list[_Row], list[str]]:
    """Return each file once in each split; one file with different labels is a mistake."""
    first: dict[str, dict[str, int]] = {}
    kept = []
    repeats, across = [], []
    for place, (record, own) in enumerate(zip(found, labels, strict=True)):
        earlier = first.setdefault(record.path, {})
        twin = next(iter(earlier.values()), None)
        if twin is not None and set(labels[twin]) != set(own):
            bad.add(record.file, record.row, "contradictions", _contradiction(record, own, found[twin], labels[twin]))
        elif record.split in earlier:
            repeats.append(record)
            continue
        elif twin is not None:
            across.append((found[twin], record))
        earlier.setdefault(record.split, place)
        kept.append((record, own))
    warnings = []
    if repeats:
        rows = ", ".join(f"row {record.row}" for record in repeats[:_FEW])
        warnings.append(
            f"{quantity(len(repeats), 'row repeats an earlier one and was', 'rows repeat an earlier one and were')} "
            f"left out ({rows})."
        )
    if across:
        one, other = across[0]
        warnings.append(
            f"{quantity(len(across), 'file is', 'files are')} listed in two splits, for example {one.path!r} in "
            f"{one.split} "
            f"and {other.split}."
        )
    return kept, warnings


def _contradiction(record: Record, own: tuple[str, ...], twin: Record, labels: tuple[str, ...]) -> str:
    here, there = ("|".join(names) or "nothing" for names in (own, labels))
    place = f"row {twin.row}" if twin.file == record.file else f"{twin.file.name}, row {twin.row}"
    hint = "" if record.flags else " (several labels of one image stand in one cell: a|b)"
    return f"{record.path!r} is {here!r} here and {there!r} in {place}{hint}"


def _columns(kept: Sequence[_Row], class_names: Sequence[str], *, multilabel: bool) -> Rows:
    number = {name: place for place, name in enumerate(class_names)}
    columns: dict[str, tuple[list[str], list[list[int]]]] = {}
    for record, own in kept:
        paths, places = columns.setdefault(record.split, ([], []))
        paths.append(record.path)
        places.append(sorted(number[name] for name in own))
    order = [split for split in ("", "train", "val", "test") if split in columns]
    if multilabel:
        return {split: columns[split] for split in order}
    return {split: (columns[split][0], [place for own in columns[split][1] for place in own]) for split in order}


def _check_classes(kept: Sequence[_Row], class_names: Sequence[str], bad: BadRows, *, for_training: bool) -> None:
    """Require something to train on: at least two classes, and each of them in the training rows."""
    if not kept:
        return
    file = kept[0][0].file
    if not class_names:
        bad.add(file, None, "lists without labels", "no row has a label")
    if not for_training:
        return
    if len(class_names) == 1:
        bad.add(file, None, "too few classes", f"all rows have the class {class_names[0]!r}; a classifier needs two")
    splits = {record.split for record, _ in kept}
    if "" not in splits and "train" not in splits:
        bad.add(file, None, "missing splits", f"there are rows for {quoted(sorted(splits))}, but none for train")
        return
    trained = {name for record, own in kept if record.split in ("", "train") for name in own}
    for record, own in kept:
        for name in own:
            if name not in trained:
                reason = f"the class {name!r} is in {record.split}, and no training row has it"
                bad.add(record.file, record.row, "classes that are not trained on", reason)
                trained.add(name)


def _label_warnings(kept: Sequence[_Row], class_names: Sequence[str], names: Names | None) -> Iterator[str]:
    none = sum(not own for _, own in kept)
    if none:
        yield f"{none} of {quantity(len(kept), 'image')} without a label: counted as having none of the classes."
    counts = Counter(name for record, own in kept if record.split == "train" for name in own)
    single = [name for name in class_names if counts[name] == 1]
    if single:
        yield f"Classes with a single training image: {quoted(single)}."
    if names is not None and set(class_names) < set(names.names.values()):
        unused = [name for name in names.names.values() if name not in class_names]
        yield f"Names of {names.file.name} that no image has were left out: {quoted(unused, 5)}."


def _number_warnings(
    found: Sequence[Record], labels: Sequence[tuple[str, ...]], names: Names | None, *, multilabel: bool
) -> Iterator[str]:
    """Yield a sentence on labels that are measurements: numbers of a regression, of which each would be a class."""
    values = {label for own in labels for label in own}
    if multilabel or len(values) < 2 or not all(map(_NUMBER.fullmatch, values)):
        return
    numbers = sorted(float(value) for value in values)
    if all(number.is_integer() for number in numbers):
        counted = numbers[0] in (0, 1) and numbers[-1] - numbers[0] < 2 * len(values)  # as class numbers are
        if names is not None or counted or len(values) <= _FEW_NUMBERS or len(values) * 5 < len(found):
            return
    name = _column(found[0]).name
    yield (
        f"The labels{f' in {name!r}' if name else ''} are numbers, {len(values)} different ones for {len(found)} rows, "
        "and each is taken as a class of its own: regraft names classes and predicts no numbers. To sort images into "
        "ranges, write the name of a range for each row."
    )


def _path_warnings(locator: Locator) -> Iterator[str]:
    if locator.num_backslashes:
        yield f"{locator.num_backslashes} paths are written with backslashes and were read with slashes."
    if locator.num_outside:
        yield (
            f"{locator.num_outside} paths lead out of {locator.folders[0]!r}, for example {locator.example_outside!r}."
        )
