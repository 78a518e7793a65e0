"""Which labels the cells of a column hold: one each, or several, by a separator or as a list, judged by all cells.

`a|b` are two labels wherever it stands. A column called `tags` or `labels` may hold any number of them, and their
separator is the first of these that its cells show: lists (`["a", "b"]`, JSON or Python; `[a b]` where no list holds a
comma or a quote and the words come again), `;`, `,`, and spaces where the words come again in other cells (in `tags`),
or where all are numbers. `/` and `+` are parts of names, which is said where what stands between them comes again.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Iterable
from typing import NamedTuple

__all__ = ["Column", "Reading", "read_cells"]

Split = Callable[[str], tuple[str, ...] | None]
_OF_WORDS = ("tags", "tag", "attributes", "attrs")  # names of columns whose labels are single words
_NUMBERS = re.compile(r"\d+(\s+\d+)*")
_ITEM = re.compile(r"""\s*(?:"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)'|([^,:'"\[\](){}]+))\s*(,?)""")
_BRACKETS = {"[": "]", "(": ")", "{": "}"}
_SEPARATORS = {";": "';'", ",": "','", " ": "spaces", "/": "'/'", "+": "'+'"}
_NEVER_SPLIT = "/+"
_OFTEN_IN_NAMES = " /+"


class Column(NamedTuple):
    """A column of labels: its name, and whether that says that a cell may hold any number of them."""

    name: str
    many: bool


class Reading(NamedTuple):
    """How cells are read.

    Attributes:
        labels: A cell -> its labels; None for one that cannot be read.
        several: Whether cells may hold several.
        warnings: What people should know of it.
    """

    labels: Split
    several: bool
    warnings: tuple[str, ...] = ()


def read_cells(cells: Iterable[str], column: Column) -> Reading:
    """Return the format of a column's labels: one label in a cell, a list, or labels between separators.

    Args:
        cells: All of them, or each different one.
        column: The column.
    """
    texts = {cell for cell in cells if cell}
    if any("|" in text for text in texts):
        return Reading(_by("|"), True)
    where = f"The cells of {column.name!r}" if column.name else "The labels"
    if 2 * sum(map(_is_bracketed, texts)) > len(texts):
        return _listed({text[1:-1].strip() for text in texts if _is_bracketed(text)}, where)
    if any(" " in text for text in texts) and all(map(_NUMBERS.fullmatch, texts)):
        return Reading(str.split, True, (f"{where} were split at spaces: each may hold any number of labels.",))  # type: ignore[arg-type]
    for separator in _SEPARATORS:
        if any(separator in text for text in texts):
            found = _separated(texts, separator, column, where)
            if found is not None:
                return found
    return Reading(_one, column.many)


def _listed(bodies: set[str], where: str) -> Reading:
    """Return the reading of lists, from the text between their brackets."""
    said = f"{where} are lists: each may hold any number of labels."
    plain = not any(sign in body for body in bodies for sign in ",'\"")
    if not plain or not any(" " in body and not _NUMBERS.fullmatch(body) for body in bodies):
        return Reading(_items, True, (said,))
    if _come_again(bodies, " "):
        advice = "They were split at spaces; where a label holds spaces itself, separate labels with ','."
        return Reading(_words, True, (f"{said} {advice}",))
    return Reading(_items, True, (f"{said} Spaces were taken as parts of labels; separate labels with ','.",))


def _separated(texts: set[str], separator: str, column: Column, where: str) -> Reading | None:
    """Return the reading by a separator that some cells hold; None where it seems to be a part of the names."""
    again = _come_again(texts, separator)
    splits = column.many and (again or separator == ";") and separator not in _NEVER_SPLIT
    if separator == " ":
        splits = splits and column.name.lower() in _OF_WORDS
    name = _SEPARATORS[separator]
    if splits:
        said = f"{where} were split at {name}: each may hold any number of labels. Where a label holds {name} itself, "
        return Reading(_by(separator), True, (said + "separate labels with '|'.",))
    if (again and column.many) if separator in _OFTEN_IN_NAMES else (again or column.many):
        said = f"{where} hold {name} and were taken as one label each; where they are several, separate them with '|'."
        return Reading(_one, column.many, (said,))
    return None


def _come_again(texts: set[str], separator: str) -> bool:
    """Return whether a part between separators recurs in other cells: labels do, parts of names rarely."""
    split = _by(separator)
    counts = Counter(part for text in texts for part in set(split(text) or ()))
    several = [text for text in texts if len(split(text) or ()) > 1]
    return any(counts[part] > 1 for text in several for part in split(text) or ())


def _one(text: str) -> tuple[str, ...]:
    return (text,) if text else ()


def _by(separator: str) -> Split:
    def split(text: str) -> tuple[str, ...]:
        return tuple(dict.fromkeys(part for part in map(str.strip, text.split(separator)) if part))

    return split


def _words(text: str) -> tuple[str, ...] | None:
    """Return the words of a list without commas, as NumPy and pandas print it; None for a text that is not one."""
    if not text:
        return ()
    return tuple(dict.fromkeys(text[1:-1].split())) if _is_bracketed(text) else None


def _is_bracketed(text: str) -> bool:
    return len(text) > 1 and _BRACKETS.get(text[0]) == text[-1]


def _items(text: str) -> tuple[str, ...] | None:
    """Return the items of a list as JSON, Python, NumPy or PostgreSQL write it; None for a text that is not one."""
    if not text:
        return ()
    if not _is_bracketed(text):
        return None
    if text[0] == "{":  # in JSON a table, in PostgreSQL a list
        return _loose_items(text[1:-1])
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return _loose_items(text[1:-1])
    plain = isinstance(values, list) and all(isinstance(value, str | int | float) for value in values)
    return tuple(dict.fromkeys(str(value).strip() for value in values if str(value).strip())) if plain else None


def _loose_items(body: str) -> tuple[str, ...] | None:
    found: list[str] = []
    place = 0
    while place < len(body) and not body[place:].isspace():
        match = _ITEM.match(body, place)
        if match is None:
            return None
        quoted = match[1] if match[1] is not None else match[2]
        if quoted is not None:
            found.append(re.sub(r"\\(.)", r"\1", quoted).strip())
        else:
            bare = match[3].strip()
            found += bare.split() if _NUMBERS.fullmatch(bare) else [bare]
        place = match.end()
    return tuple(dict.fromkeys(filter(None, found)))
