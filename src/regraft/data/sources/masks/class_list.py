"""Lists of classes for masks: name, number and colour of each, from CSV, text or YAML files, or from a recipe."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from regraft.data.class_table import IGNORED, ClassTable, Colour, unpack
from regraft.data.files import access
from regraft.data.sources.bad_rows import BadRows
from regraft.data.sources.text import TextLines
from regraft.errors import DataError
from regraft.wording import quantity

__all__ = ["Entry", "find_class_list", "inline_classes", "is_void", "listed_classes", "read_class_list"]

_LARGEST_YAML = 1 << 20
_VALUE = ("value", "pixel value", "pixel", "id", "index", "number", "code", "label id", "class id", "train id")
_NAME = ("name", "class name", "class", "label name", "label", "category", "object")
_RED, _GREEN, _BLUE = ("r", "red"), ("g", "green"), ("b", "blue")
_COLOUR = ("colour", "color", "rgb", "hex", "color rgb", "colour rgb")
_IGNORE = ("ignore", "ignored", "ignore in eval", "void")
_VOID = {"void", "unlabelled", "unlabeled", "ignore", "ignored", "ignore region", "unlabelled region", "dont care"}
_BESIDE = (
    *("class_table.csv", "class_table.txt", "class_table.yaml", "class_table.yml"),
    *("class_dict.csv", "_classes.csv", "classes.csv", "classes.yaml", "classes.yml", "label_colors.txt"),
    *("labelmap.txt", "classes.txt", "class_names.txt", "names.txt", "labels.txt", "codes.txt"),
)
_YES, _NO = ("1", "true", "yes"), ("", "0", "false", "no")


@dataclass(frozen=True)
class Entry:
    """One row of a list of classes; rows of the same name are one class."""

    name: str
    value: int | None = None
    colour: Colour | None = None
    ignored: bool = False


def is_void(name: str) -> bool:
    """Return whether a class of this name is what data sets call pixels without a class."""
    return re.sub(r"[\W_]+", " ", name.replace("'", "")).strip().lower() in _VOID


def find_class_list(folders: Iterable[Path]) -> Path | None:
    """Return the list of classes in one of these folders under one of the default names."""
    places = (folder / name for folder in folders for name in _BESIDE)
    return next((path for path in places if access.is_file(path)), None)


def read_class_list(path: Path) -> list[Entry]:
    """Return the rows of a list of classes.

    A CSV or TSV file has columns called name, value (or id, index), r, g, b (or colour) and ignore, as far as they are
    there. A text file has one class a line: `name`, `number name`, `r g b name`, or `name:r,g,b::`. A YAML file has a
    list of names, or of mappings with these keys.

    Raises:
        DataError: No such file, or rows that cannot be used; all of them named.
    """
    if not access.is_file(path):
        raise DataError(
            f"There is no class table {str(path)!r}.",
            "a CSV, text or YAML file with the name, and the value or the colour, of each class",
            "check the spelling of data.class_table",
        )
    bad = BadRows()
    if path.suffix.lower() in (".yaml", ".yml", ".json"):
        entries = _from_yaml(path, bad)
    else:
        lines = TextLines(path, bad)
        rows = [(lines.number, line.rstrip("\r\n")) for line in lines if line.strip() and not line.startswith("#")]
        is_table = path.suffix.lower() in (".csv", ".tsv") or (bool(rows) and _header(rows[0][1]) is not None)
        entries = list((_from_table if is_table else _from_lines)(path, rows, bad))
    if not entries and not len(bad):
        bad.add(path, None, "empty lists", "has no rows")
    if len(bad):
        raise bad.error(path, str(path.parent))
    return entries


def inline_classes(rows: Sequence[Any]) -> list[Entry]:
    """Return the rows of a list of classes given in a recipe, or in Python.

    Raises:
        DataError: Rows that cannot be used; all of them named.
    """
    bad = BadRows()
    entries = list(_from_values(Path("class_table"), rows, bad))
    if len(bad) or not entries:
        raise DataError(
            "The class table cannot be used.",
            "it is a list of names, or of rows such as {name: road, value: 3, colour: [128, 64, 128]}",
            "correct data.class_table",
            details=bad.lines or ["it has no rows."],
        )
    return entries


def listed_classes(table: ClassTable) -> list[Entry]:
    """Return the rows of a list that gives this class table again, for masks of the same coding."""
    rows = sorted(table.codes.items(), key=lambda row: (row[1], row[0]))
    return [
        Entry(
            "void" if place == IGNORED else table.names[place],
            code if table.coding == "index" else None,
            unpack(code) if table.coding == "colour" else None if place == IGNORED else table.colours[place],
            ignored=place == IGNORED,
        )
        for code, place in rows
    ]


def _words(cell: str) -> str:
    return re.sub(r"[\s_\-]+", " ", cell.strip().strip('"').lower())


def _header(line: str) -> dict[str, int] | None:
    """Return column places by meaning, where a line is a header."""
    cells = [_words(cell) for cell in _cells(line)]
    if len(cells) < 2:
        return None
    places: dict[str, int] = {}
    wanted = {"name": _NAME, "value": _VALUE, "r": _RED, "g": _GREEN, "b": _BLUE, "colour": _COLOUR, "ignore": _IGNORE}
    for meaning, names in wanted.items():
        found = [cells.index(name) for name in names if name in cells and cells.index(name) not in places.values()]
        if found:
            places[meaning] = found[0]
    return places if "name" in places else None


def _cells(line: str) -> list[str]:
    delimiter = max(",;\t", key=line.count)
    return [cell.strip() for cell in next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])]


def _from_table(path: Path, rows: Sequence[tuple[int, str]], bad: BadRows) -> Iterable[Entry]:
    places = _header(rows[0][1]) if rows else None
    if places is None and rows:
        num = len(_cells(rows[0][1]))
        is_number_first = _cells(rows[0][1])[0].isdecimal()
        if num == 4 and not is_number_first:
            places = {"name": 0, "r": 1, "g": 2, "b": 3}
        elif num == 2:
            places = {"value": 0, "name": 1} if is_number_first else {"name": 0, "value": 1}
        else:
            bad.add(
                path, rows[0][0], "tables without a header", "is not a header; a header is, for example, name,r,g,b"
            )
            return
    else:
        rows = rows[1:]
    for row, line in rows:
        cells = _cells(line)
        if places is None or len(cells) <= max(places.values()):
            bad.add(path, row, "short rows", f"has {quantity(len(cells), 'cell')}, and the header more")
            continue
        given: dict[str, Any] = {meaning: cells[place] for meaning, place in places.items()}
        if {"r", "g", "b"} <= set(given):
            given["colour"] = [given.pop(channel) for channel in "rgb"]
        yield from _entry(path, row, given, bad)


def _from_lines(path: Path, rows: Sequence[tuple[int, str]], bad: BadRows) -> Iterable[Entry]:
    rows = [(row, text.strip()) for row, text in rows]
    forms = (
        r"(?P<name>[^:]+):\s*(?P<r>\d+)\s*,\s*(?P<g>\d+)\s*,\s*(?P<b>\d+)\s*(:.*)?",
        r"(?P<r>\d+)[\s,]+(?P<g>\d+)[\s,]+(?P<b>\d+)[\s,]+(?P<name>\S.*)",
        r"(?P<name>.*\S)[\s,]+(?P<r>\d+)[\s,]+(?P<g>\d+)[\s,]+(?P<b>\d+)",
        r"(?P<value>\d+)[\s:,]+(?P<name>\S.*)",
        r"(?P<name>.*)",
    )
    for form in forms:
        found = [re.fullmatch(form, text) for _, text in rows]
        if found and (all(found) or (found[0] is not None and "r" in found[0].groupdict())):
            break
    for (row, text), match in zip(rows, found, strict=True):
        if match is None:
            bad.add(path, row, "rows of another form", f"{text!r} has not the form of the first row")
            continue
        given: dict[str, Any] = match.groupdict()
        if "r" in given:
            given["colour"] = [given.pop(channel) for channel in "rgb"]
        yield from _entry(path, row, given, bad)


def _from_yaml(path: Path, bad: BadRows) -> list[Entry]:
    import yaml

    try:
        if access.state_of(path).st_size > _LARGEST_YAML:
            bad.add(path, None, "files that are not a list", "is larger than 1 MiB")
            return []
        with access.open_text(path, "utf-8-sig") as stream:
            values = yaml.safe_load(stream.read())
    except (OSError, ValueError, yaml.YAMLError, RecursionError) as error:
        bad.add(path, None, "files that are not a list", f"is no YAML ({' '.join(str(error).split())[:120]})")
        return []
    if isinstance(values, dict):
        inner = next((values[key] for key in ("classes", "names", "class_table", "labels") if key in values), None)
        values = inner if inner is not None else values
    if isinstance(values, dict):  # number: name, or name: number
        pairs = values.items()
        values = [
            {"name": str(name), "value": key} if isinstance(key, int) else {"name": str(key), **_as_row(name)}
            for key, name in pairs
        ]
    if not isinstance(values, list):
        bad.add(path, None, "files that are not a list", "holds no list of classes")
        return []
    return list(_from_values(path, values, bad))


def _as_row(value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return value
    return {"colour": value} if isinstance(value, list) else {"value": value}


def _from_values(path: Path, rows: Sequence[Any], bad: BadRows) -> Iterable[Entry]:
    known = {"name", "value", "colour", "color", "ignore"}
    for row, given in enumerate(rows, start=1):
        if isinstance(given, Mapping):
            unknown = sorted(str(key) for key in given if key not in known)
            if unknown:
                bad.add(path, row, "unknown keys", f"has {', '.join(unknown)}; a row has name, value, colour, ignore")
                continue
            fields = dict(given)
            if "color" in fields:
                fields["colour"] = fields.pop("color")
            yield from _entry(path, row, fields, bad)
        elif isinstance(given, (str, int)) and not isinstance(given, bool):
            yield from _entry(path, row, {"name": str(given)}, bad)
        else:
            bad.add(path, row, "rows that are not a class", f"{given!r} is neither a name nor a row of a class table")


def _entry(path: Path, row: int, given: Mapping[str, Any], bad: BadRows) -> Iterable[Entry]:
    """Yield one checked row; nothing where it has a mistake, which is reported."""
    name = str(given.get("name") or "").strip()
    if not name or not name.isprintable():
        bad.add(path, row, "rows without a name", "has no class name")
        return
    entry = Entry(name)
    if given.get("value") not in (None, ""):
        value = _whole(given["value"])
        if value is None or not 0 <= value <= 65535:
            bad.add(path, row, "values that are not a number", f"the value {given['value']!r} is none from 0 to 65535")
            return
        entry = replace(entry, value=value)
    if given.get("colour") not in (None, "", []):
        colour = as_colour(given["colour"])
        if colour is None:
            bad.add(
                path,
                row,
                "colours",
                f"{given['colour']!r} is not a colour: red, green, blue from 0 to 255, or '#rrggbb'",
            )
            return
        entry = replace(entry, colour=colour)
    word = str(given.get("ignore", "")).strip().lower()
    if word not in (*_YES, *_NO):
        bad.add(path, row, "ignore", f"ignore is {given['ignore']!r}; it is true or false")
        return
    yield replace(entry, ignored=word in _YES)


def as_colour(given: Any) -> Colour | None:
    """Return a colour from three numbers, or from '#rrggbb' or 'r g b'; None for anything else."""
    if isinstance(given, str):
        if match := re.fullmatch(r"#?([0-9a-fA-F]{6})", given.strip()):
            code = int(match[1], 16)
            return code >> 16, code >> 8 & 255, code & 255
        given = re.split(r"[\s,]+", given.strip(" ()[]"))
    if not isinstance(given, (list, tuple)) or len(given) != 3:
        return None
    red, green, blue = (_whole(channel) for channel in given)
    if red is None or green is None or blue is None or not all(0 <= value <= 255 for value in (red, green, blue)):
        return None
    return red, green, blue


def _whole(given: Any) -> int | None:
    if isinstance(given, bool):
        return None
    if isinstance(given, int):
        return given
    text = str(given).strip()
    return int(text) if re.fullmatch(r"[0-9]{1,9}(\.0+)?", text) and "." not in text else None
