"""The class table of a data set: from a list of classes, from what is known of it, or from what the masks hold."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from regraft.data.budget import in_order, num_cpus
from regraft.data.class_table import IGNORED, MOST_CLASSES, ClassTable, Coding, default_colours, pack, unpack
from regraft.data.masks import codes_or_reason, fetch_mask
from regraft.data.sources.class_list import Entry, as_colour, is_void
from regraft.data.sources.listing import quoted
from regraft.errors import DataError, SettingsError, nearest

__all__ = ["Chosen", "choose_table"]

_FEW_MASKS, _MANY_MASKS = 100, 2000  # that are looked at where there is a list of classes, and where there is none
_MOST_SHOWN = 40
_SMEARED = 500  # different colours that no hand has drawn
_TOLERATED = 0.1  # share of masks with values that the table does not have; these are left out when they are read


@dataclass(frozen=True)
class Chosen:
    """A class table, and what people should know about it."""

    table: ClassTable
    warnings: tuple[str, ...] = ()


def choose_table(
    root: Path,
    masks: Sequence[str],
    entries: Sequence[Entry],
    origin: str,
    ignore: Sequence[Any],
    known: Sequence[Entry] = (),
) -> Chosen:
    """The class table of these masks.

    Args:
        root: The data set, for sentences.
        masks: All mask files.
        entries: The list of classes; empty where there is none.
        origin: Where the list comes from.
        ignore: Values, colours or names that count for nothing.
        known: The classes of a data set that this seems to be; taken where the masks hold nothing else.

    Raises:
        DataError: The masks do not fit the list, or hold what cannot be told without a list.
        SettingsError: `ignore` names what is not there.
    """
    look = _looked_at(masks, _FEW_MASKS if entries else _MANY_MASKS, with_colours=bool(entries))
    if not entries and look.coding == "colour" and look.codings["index"]:
        look = _looked_at(masks, _MANY_MASKS, with_colours=True)
    warnings = list(look.warnings)
    if not entries and known and look.coding == "index" and set(look.codes) <= {IGNORED, *_values(known)}:
        entries, origin = known, "the built-in list of this data set"
        warnings.append(f"The classes are those of {origin}: {quoted(entry.name for entry in known)}.")
    if not entries:
        entries = _from_masks(root, look, ignore, warnings)
        origin = "the masks"
    coding = _coding(entries, look)
    table = _table(root, entries, coding, ignore, origin, look)
    _require_known(root, table, look, origin)
    return Chosen(table, tuple(warnings))


@dataclass
class _Look:
    """What stands in some of the masks.

    Attributes:
        codings: How many masks hold numbers, and colours.
        codes: Number of masks for each number or packed colour, in the coding that most masks have.
        colours: The same, with everything read as colours.
        num: How many masks were read.
        example: A mask for each number or colour.
        warnings: What people should know.
    """

    codings: Counter[Coding] = field(default_factory=Counter)
    codes: Counter[int] = field(default_factory=Counter)
    colours: Counter[int] = field(default_factory=Counter)
    num: int = 0
    example: dict[int, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def coding(self) -> Coding:
        """What the masks hold: of a set in colours, many may be grey by chance; a few others are strays."""
        return "colour" if self.codings["colour"] > _TOLERATED * self.num else "index"


def _looked_at(masks: Sequence[str], most: int, *, with_colours: bool) -> _Look:
    look = _Look()
    chosen = sorted({round(place) for place in np.linspace(0, len(masks) - 1, min(most, len(masks)))}) if masks else []
    if len(chosen) < len(masks) and most == _MANY_MASKS:
        look.warnings.append(f"The classes were taken from {len(chosen):,} of the {len(masks):,} masks.")
    by_number: Counter[int] = Counter()
    for row, found in in_order(lambda row: (row, _codes_in(masks[row], with_colours)), chosen, num_cpus()):
        if found is None:
            continue  # it is told, and left out, when all masks are read
        coding, numbers, colours = found
        look.num += 1
        look.codings[coding] += 1
        by_number.update(numbers)
        look.colours.update(colours)
        for code in colours if coding == "colour" else numbers:
            look.example.setdefault(code, masks[row])
    look.codes = look.colours if look.coding == "colour" else by_number
    return look


def _codes_in(path: str, with_colours: bool) -> tuple[Coding, list[int], list[int]] | None:
    data = fetch_mask(path)
    found = data if isinstance(data, str) else codes_or_reason(data)
    if isinstance(data, str) or isinstance(found, str):
        return None
    coding, codes = found
    if coding == "colour":
        return coding, [], np.unique(codes).tolist()
    as_colours = codes_or_reason(data, "colour") if with_colours else ""
    colours = [] if isinstance(as_colours, str) else np.unique(as_colours[1]).tolist()
    return coding, np.flatnonzero(np.bincount(codes.ravel())).tolist(), colours


def _values(entries: Iterable[Entry]) -> list[int]:
    """The number of each row: its own, or its place."""
    return [place if entry.value is None else entry.value for place, entry in enumerate(entries)]


def _coding(entries: Sequence[Entry], look: _Look) -> Coding:
    """Whether the masks are read as numbers or as colours."""
    has_colours = all(entry.colour is not None for entry in entries)
    has_values = any(entry.value is not None for entry in entries)
    if look.coding == "colour":
        return "colour"
    if has_colours and not has_values:
        known = {pack(entry.colour) for entry in entries if entry.colour is not None}
        if look.colours and set(look.colours) <= known:
            return "colour"
        if not set(look.codes) <= {IGNORED, *range(len(entries))}:
            return "colour"
    return "index"


def _from_masks(root: Path, look: _Look, ignore: Sequence[Any], warnings: list[str]) -> list[Entry]:
    """The classes where nobody said them: one for each number in the masks."""
    if not look.num:
        raise DataError(
            f"No mask of {os.fspath(root)!r} can be read.",
            "Masks are PNG files of numbers, of a palette, or of colours.",
            "Look at one of them with `regraft inspect`, or name another folder with `--masks`.",
        )
    if look.coding == "colour":
        raise _colours_unnamed(root, look)
    values = sorted(set(look.codes) - {value for value in ignore if isinstance(value, int)})
    if values in ([0, 255], [255]) and not ignore:
        warnings.append(
            "The masks hold 0 and 255 alone, which were taken for background and foreground; name them with "
            "data.class_table."
        )
        return [Entry("background", 0), Entry("foreground", 255)]
    values = [value for value in values if value != IGNORED]
    if len(values) > MOST_CLASSES or not values:
        raise DataError(
            f"The masks of {os.fspath(root)!r} hold {len(values)} different values.",
            f"A mask holds a number for each class, at most {MOST_CLASSES}.",
            "Name the classes with data.class_table; numbers of single objects (instance ids) are no classes.",
        )
    warnings.append(
        f"The classes have no names and are called by their values, {values[0]} to {values[-1]}; name them, and what "
        "is void, in a file classes.txt beside the images, or with data.class_table and data.ignore."
    )
    return [Entry(str(value), value) for value in values]


def _colours_unnamed(root: Path, look: _Look) -> DataError:
    common = [code for code, _ in look.codes.most_common(_MOST_SHOWN)]
    lines = ["name,r,g,b", *("class{},{},{},{}".format(place, *unpack(code)) for place, code in enumerate(common))]
    more = len(look.codes) - len(common)
    if len(look.codes) > _SMEARED:
        return DataError(
            f"The masks of {os.fspath(root)!r} hold {len(look.codes):,} different colours.",
            "Masks have one colour for each class; so many come from compression or smooth resizing.",
            "Save the masks again, as PNG and without smoothing; or name another folder with `--masks`.",
        )
    return DataError(
        f"The masks of {os.fspath(root)!r} hold colours, and nothing says which class each stands for.",
        "Expected a class table: a file class_dict.csv in that folder, or data.class_table.",
        "Write the lines below into it, with the right names (a class called void is ignored).",
        details=[*lines, *([f"and {more} more colours"] if more else [])],
    )


def _table(
    root: Path, entries: Sequence[Entry], coding: Coding, ignore: Sequence[Any], origin: str, look: _Look
) -> ClassTable:
    if coding == "colour" and any(entry.colour is None for entry in entries):
        lacking = [entry.name for entry in entries if entry.colour is None]
        raise DataError(
            f"The masks of {os.fspath(root)!r} hold colours, and {origin} has none for {quoted(lacking)}.",
            "Expected red, green and blue of each class (columns r, g, b).",
            "Add them; the masks hold: "
            + ", ".join(str(unpack(code)) for code, _ in look.codes.most_common(_MOST_SHOWN)),
        )
    if not any(entry.ignored for entry in entries):
        entries = [replace(entry, ignored=is_void(entry.name)) for entry in entries]
    numbers = _values(entries) if coding == "index" else [pack(entry.colour or (0, 0, 0)) for entry in entries]
    codes, names, colours, twice = _numbered(entries, numbers)
    mistakes = [f"{origin}: {text}" for text in twice]
    mistakes += _set_aside(codes, entries, numbers, ignore, coding)
    kept = [place for place in range(len(names)) if place in codes.values()]
    if not kept or len(kept) > MOST_CLASSES:
        mistakes.append(f"{origin} has {len(kept)} classes; it has from 1 to {MOST_CLASSES}.")
    if mistakes:
        raise SettingsError(
            f"The classes of {os.fspath(root)!r} cannot be used.",
            "Each value or colour stands for one class, and data.ignore names some of them.",
            "Correct what is listed below.",
            details=mistakes,
        )
    if coding == "index":
        codes.setdefault(IGNORED, IGNORED)
    moved = {place: number for number, place in enumerate(kept)} | {IGNORED: IGNORED}
    chosen = tuple(names[place] for place in kept)
    defaults = default_colours(chosen)
    return ClassTable(
        chosen,
        tuple(colours.get(names[place]) or defaults[number] for number, place in enumerate(kept)),
        coding,
        {code: moved[place] for code, place in sorted(codes.items())},
    )


def _numbered(
    entries: Sequence[Entry], numbers: Sequence[int]
) -> tuple[dict[int, int], list[str], dict[str, tuple[int, int, int]], list[str]]:
    """Code -> place among the names; the names; their colours; and what stands twice."""
    codes: dict[int, int] = {}
    names: list[str] = []
    colours: dict[str, tuple[int, int, int]] = {}
    twice = []
    for entry, code in zip(entries, numbers, strict=True):
        if entry.name not in names:
            names.append(entry.name)
        if entry.colour is not None:
            colours.setdefault(entry.name, entry.colour)
        place = IGNORED if entry.ignored else names.index(entry.name)
        if codes.setdefault(code, place) != place:
            twice.append(f"{entry.name!r} has the value or colour of another class, {entry.colour or code}.")
    return codes, names, colours, twice


def _set_aside(
    codes: dict[int, int], entries: Sequence[Entry], numbers: Sequence[int], ignore: Sequence[Any], coding: Coding
) -> list[str]:
    """Mark as ignored what `ignore` names; returns what is wrong with it."""
    mistakes = []
    for item in ignore:
        colour = as_colour(item) if not isinstance(item, int) else None
        named = [code for entry, code in zip(entries, numbers, strict=True) if entry.name == item]
        if named:
            codes.update(dict.fromkeys(named, IGNORED))
        elif isinstance(item, int) and coding == "index":
            codes[item] = IGNORED
        elif colour is not None and coding == "colour":
            codes[pack(colour)] = IGNORED
        else:
            near = nearest(str(item), [entry.name for entry in entries])
            kind = "a number" if coding == "index" else "a colour such as [0, 0, 0]"
            hint = f" (did you mean {near}?)" if near else ""
            mistakes.append(f"data.ignore: {item!r} is no class{hint}; it is a class name or {kind}.")
    return mistakes


def _require_known(root: Path, table: ClassTable, look: _Look, origin: str) -> None:
    """Raise where many masks hold what the table does not have; of few, each is named when it is read."""
    if table.coding == "colour":
        found: Mapping[int, int] = look.colours
    elif look.coding == "index":
        found = look.codes
    else:
        found = {}
    unknown = {code: count for code, count in found.items() if code not in table.codes}
    if not unknown or max(unknown.values()) <= max(1, _TOLERATED * look.num):
        return
    common = sorted(unknown, key=lambda code: (-unknown[code], code))[:_MOST_SHOWN]
    example = os.path.relpath(look.example.get(common[0], os.fspath(root)), root)
    kind = "value" if table.coding == "index" else "colour"
    lines = [f"{table.describe(code)}: in {unknown[code]} of {look.num} masks" for code in common]
    void = common[0] if kind == "value" else f"'#{common[0]:06x}'"
    raise DataError(
        f"The masks of {os.fspath(root)!r} hold {kind}s that {origin} does not have, for example {example!r}.",
        f"Every {kind} stands for a class, or is ignored (data.ignore).",
        f"Add them to the class table, or type `--ignore {void}` if that is void.",
        details=[*lines, *([f"and {len(unknown) - len(common)} more"] if len(unknown) > len(common) else [])],
    )
