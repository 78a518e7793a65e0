"""The class table of a data set: from a list of classes, from what is known of it, or from what the masks hold."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from regraft.data.class_table import IGNORED, MOST_CLASSES, ClassTable, Coding, default_colours, pack, unpack
from regraft.data.sources.listing import quoted
from regraft.data.sources.masks.class_list import Entry, as_colour, is_void
from regraft.data.sources.masks.mask_look import FEW_MASKS, MANY_MASKS, TOLERATED, Look, blends_in, look_at
from regraft.errors import DataError, SettingsError, nearest
from regraft.wording import quantity

__all__ = ["OF_TRAINING", "Chosen", "choose_table"]

OF_TRAINING = "the class table of the training"

_MOST_SHOWN = 40
_FEW_VALUES = 8  # that a sentence lists
_SMEARED = 500  # different colours that no hand has drawn


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
    """Return the class table of these masks.

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
    look = look_at(masks, FEW_MASKS if entries else MANY_MASKS, with_colours=bool(entries))
    if not entries and look.coding == "colour" and look.codings["index"]:
        look = look_at(masks, MANY_MASKS, with_colours=True)
    warnings = list(look.warnings)
    if not entries and known and look.coding == "index" and set(look.codes) <= {IGNORED, *_values(known)}:
        entries, origin = known, "the built-in list of this data set"
        warnings.append(f"The classes are those of {origin}: {quoted(entry.name for entry in known)}.")
    _refuse_blends(root, look, entries, ignore)
    entries = _of_two_values(entries, look, origin, ignore, warnings)
    if not entries:
        entries = _from_masks(root, look, ignore, warnings)
        origin = "the masks"
    coding = _coding(entries, look)
    table = _table(root, entries, coding, ignore, origin, look)
    _require_known(root, table, look, origin)
    return Chosen(table, tuple(warnings))


def _refuse_blends(root: Path, look: Look, entries: Sequence[Entry], ignore: Sequence[Any]) -> None:
    """Raise where many masks hold values that smooth resizing or compression has made of two."""
    known = [entry.value for entry in entries if entry.value is not None]
    known += [value for value in ignore if isinstance(value, int)]
    found = None if len(entries) > 2 and not known else blends_in(look, known)
    if found is None or found.masks <= TOLERATED * look.num:
        return  # a few masks are left out one by one
    raise DataError(
        f"{found.share:.1%} of the pixels in the masks of {os.fspath(root)!r} are blends of two: one of "
        f"{quantity(len(found.values), 'value')} between 0 and {found.high} ({_listed_values(found.values)}), in "
        f"{found.masks} of {quantity(look.num, 'mask')}, for example {os.path.relpath(found.example, root)!r}.",
        f"a mask holds 0 and {found.high} alone, or a number for each class; smooth (antialiased) resizing and lossy "
        "compression blend them at borders",
        "save the masks again as PNG, resized by the nearest pixel, or set to 0 below 128 and to 255 from there on; if "
        "these values are classes, name each in a class table (data.class_table)",
    )


def _listed_values(values: Sequence[int]) -> str:
    return ", ".join(map(str, values[:_FEW_VALUES])) + (", ..." if len(values) > _FEW_VALUES else "")


def _of_two_values(
    entries: Sequence[Entry], look: Look, origin: str, ignore: Sequence[Any], warnings: list[str]
) -> Sequence[Entry]:
    """Return a list of two classes for masks of black and white: the second class is 255, which is not to be
    ignored.
    """
    if origin == OF_TRAINING:  # whose tables ignore 255 without being asked
        kept = [entry for entry in entries if not (entry.ignored and entry.value == IGNORED)]
        found = _of_two_values(kept, look, "the training", ignore, warnings)
        return entries if found is kept else found
    classes = [entry for entry in entries if not (entry.ignored or is_void(entry.name))]
    if len(classes) == len(entries) == 1 and look.is_two_valued and classes[0].value is None and not ignore:
        warnings.append(f"The masks hold 0 and 255 alone: 255 was taken for {classes[0].name!r}, 0 for the background.")
        return [Entry("background", 0), replace(classes[0], value=IGNORED)]
    if len(classes) != 2 or look.coding != "index" or IGNORED in ignore or look.codes[IGNORED] == 0:
        return entries
    values = dict(zip(entries, _values(entries), strict=True))
    first, second = (values[entry] for entry in classes)
    if (first, second) != (0, 1) or IGNORED in values.values() or any(entry.name in ignore for entry in classes):
        return entries
    white = sum(num for kind, num in look.kinds.items() if IGNORED in kind and kind <= {0, IGNORED})
    if look.codes[1] and white:
        warnings.append(
            f"{look.codes[1]} of {look.num} masks hold the value 1, and {white} hold 0 and 255 alone: 255 is ignored "
            f"in all of them; where it is meant to be {classes[1].name!r}, write 1 there."
        )
    if look.codes[1] or not look.is_two_valued or look.codes[0] == 0:
        return entries
    warnings.append(
        f"The masks hold 0 and 255 alone: 255 ({look.pixels[IGNORED] / look.pixels.total():.1%} of their pixels) was "
        f"taken for {classes[1].name!r}, the second class of {origin}, and 0 for {classes[0].name!r}; if 255 is void, "
        "say so with data.ignore (`--ignore 255`)."
    )
    return [replace(entry, value={classes[0]: 0, classes[1]: IGNORED}.get(entry, values[entry])) for entry in entries]


def _values(entries: Iterable[Entry]) -> list[int]:
    """Return the number of each row: its own, or its place."""
    return [place if entry.value is None else entry.value for place, entry in enumerate(entries)]


def _coding(entries: Sequence[Entry], look: Look) -> Coding:
    """Return whether the masks are read as numbers or as colours."""
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


def _from_masks(root: Path, look: Look, ignore: Sequence[Any], warnings: list[str]) -> list[Entry]:
    """Return the classes where nobody said them: one for each number in the masks."""
    if not look.num:
        raise DataError(
            f"No mask of {os.fspath(root)!r} can be read" + (f": {look.reason}." if look.reason else "."),
            "masks are PNG files of numbers, of a palette, or of colours",
            "look at one of them with `regraft inspect`, or name another folder with `--masks`",
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
    if IGNORED in values and not ignore:
        share = look.pixels[IGNORED] / look.pixels.total()
        warnings.append(f"The value 255 ({share:.1%} of the pixels) was taken for void and is ignored.")
    values = [value for value in values if value != IGNORED]
    if len(values) > MOST_CLASSES or not values:
        raise DataError(
            f"The masks of {os.fspath(root)!r} hold {quantity(len(values), 'different value')}.",
            f"a mask holds a number for each class, at most {MOST_CLASSES}",
            "name the classes with data.class_table; numbers of single objects (instance ids) are not classes",
        )
    warnings.append(
        f"The classes have no names and are called by their values, {values[0]} to {values[-1]}; name them, and what "
        "is void, in a file classes.txt next to the images, or with data.class_table and data.ignore."
    )
    return [Entry(str(value), value) for value in values]


def _colours_unnamed(root: Path, look: Look) -> DataError:
    common = [code for code, _ in look.codes.most_common(_MOST_SHOWN)]
    lines = ["name,r,g,b", *("class{},{},{},{}".format(place, *unpack(code)) for place, code in enumerate(common))]
    more = len(look.codes) - len(common)
    if len(look.codes) > _SMEARED:
        return DataError(
            f"The masks of {os.fspath(root)!r} hold {len(look.codes):,} different colours.",
            "masks have one colour for each class; so many come from compression or smooth resizing",
            "save the masks again, as PNG and without smoothing; or name another folder with `--masks`",
        )
    return DataError(
        f"The masks of {os.fspath(root)!r} hold colours, and nothing says which class each stands for.",
        "a class table: a file class_dict.csv in that folder, or data.class_table",
        "write the lines above into it, with the right names (a class called void is ignored)",
        details=[*lines, *([f"and {more} more colours"] if more else [])],
    )


def _table(
    root: Path, entries: Sequence[Entry], coding: Coding, ignore: Sequence[Any], origin: str, look: Look
) -> ClassTable:
    if coding == "colour" and any(entry.colour is None for entry in entries):
        lacking = [entry.name for entry in entries if entry.colour is None]
        raise DataError(
            f"The masks of {os.fspath(root)!r} hold colours, and {origin} has none for {quoted(lacking)}.",
            "red, green and blue of each class (columns r, g, b)",
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
            "each value or colour stands for one class, and data.ignore names some of them",
            "",
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
    """Return the place of each code among the names; the names; their colours; and duplicates."""
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


def _require_known(root: Path, table: ClassTable, look: Look, origin: str) -> None:
    """Raise where many masks hold what the table does not have; of few, each is named when it is read."""
    if table.coding == "colour":
        found: Mapping[int, int] = look.colours
    elif look.coding == "index":
        found = look.codes
    else:
        found = {}
    unknown = {code: count for code, count in found.items() if code not in table.codes}
    if not unknown or max(unknown.values()) <= max(1, TOLERATED * look.num):
        return
    common = sorted(unknown, key=lambda code: (-unknown[code], code))[:_MOST_SHOWN]
    example = os.path.relpath(look.example.get(common[0], os.fspath(root)), root)
    kind = "value" if table.coding == "index" else "colour"
    lines = [f"{table.describe(code)}: in {unknown[code]} of {look.num} masks" for code in common]
    void = common[0] if kind == "value" else f"'#{common[0]:06x}'"
    raise DataError(
        f"The masks of {os.fspath(root)!r} hold {kind}s that {origin} does not have, for example {example!r}.",
        f"every {kind} stands for a class, or is ignored (data.ignore)",
        f"add them to the class table, or type `--ignore {void}` if that is void",
        details=[*lines, *([f"and {len(unknown) - len(common)} more"] if len(unknown) > len(common) else [])],
    )
