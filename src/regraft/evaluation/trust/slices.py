"""Parts of a split that something else than the class tells apart: a folder, a size, a brightness, a table's column."""

from __future__ import annotations

import csv
import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from regraft.data.decode.decode import PixelProgram, decode_or_reason
from regraft.data.decode.image_file import opened_or_reason, read_file
from regraft.errors import SettingsError
from regraft.wording import wilson_interval

__all__ = ["KINDS", "slice_figures", "slices_of"]

KINDS = ("folder", "size", "brightness")
_MOST = 200
_PARTS = 4
_SMALL = PixelProgram(size=(32, 32))
_NO_VALUE = "(none)"
_LUMA = np.array((0.299, 0.587, 0.114))
_DELIMITERS = ",;\t"


def slices_of(by: str, paths: Sequence[str], source: str | Path | None) -> list[str]:
    """Return the name of the slice that each image is in.

    Args:
        by: `folder` (the image's own), `size` (quarters by number of pixels), `brightness` (quarters by mean luma), or
            a column of the table that the images were read from.
        paths: The images.
        source: That table.

    Raises:
        SettingsError: There is no such column, or it has too many values to be read.
    """
    if by == "folder":
        names = [Path(path).parent.name or "." for path in paths]
    elif by in KINDS:
        measure, unit = (_num_pixels, "megapixels") if by == "size" else (_brightness, "of white")
        names = _quarters([measure(path) for path in paths], unit)
    else:
        names = _column(by, paths, source)
    if len(set(names)) > _MOST:
        raise SettingsError(
            f"{by!r} makes {len(set(names)):,} slices of {len(paths):,} images.",
            f"at most {_MOST} values",
            f"a column of groups, or one of {', '.join(KINDS)}",
        )
    return names


def slice_figures(names: Sequence[str], right: npt.NDArray[np.bool_]) -> list[dict[str, Any]]:
    """Return the share of right answers in each slice with its interval, the lowest first.

    Args:
        names: The slice of each image.
        right: Whether its answer is right.
    """
    places: dict[str, list[int]] = {}
    for place, name in enumerate(names):
        places.setdefault(name, []).append(place)
    rows = []
    for name, members in places.items():
        share = float(right[members].mean())
        interval = list(wilson_interval(share, len(members)))
        rows.append({"name": name, "num_images": len(members), "share": share, "interval": interval})
    return sorted(rows, key=lambda row: (row["share"], -row["num_images"], row["name"]))


def _quarters(values: Sequence[float | None], unit: str) -> list[str]:
    """Return each value's quarter by its limits; equal values stay together, so there may be fewer than four."""
    known = np.array([value for value in values if value is not None])
    if not len(known):
        return [_NO_VALUE] * len(values)
    limits = np.unique(np.quantile(known, np.linspace(0, 1, _PARTS + 1)))
    edges = limits[1:-1]
    if len(limits) == 1:
        return [_NO_VALUE if value is None else f"{limits[0]:.3g} {unit}" for value in values]
    texts = [f"{low:.3g} to {high:.3g} {unit}" for low, high in itertools.pairwise(limits)]
    return [_NO_VALUE if value is None else texts[int(np.searchsorted(edges, value, side="left"))] for value in values]


def _num_pixels(path: str) -> float | None:
    data = read_file(path)
    found = data if isinstance(data, str) else opened_or_reason(data, lambda image: image.width * image.height / 1e6)
    return None if isinstance(found, str) else float(found)


def _brightness(path: str) -> float | None:
    pixels = decode_or_reason(path, _SMALL)
    return None if isinstance(pixels, str) else float((pixels[..., :3] @ _LUMA).mean() / 255)


def _column(by: str, paths: Sequence[str], source: str | Path | None) -> list[str]:
    """Return the cell of a column for each image, which its path in the table names."""
    table = None if source is None else Path(source)
    if table is None or not table.is_file() or table.suffix.lower() not in (".csv", ".tsv"):
        raise SettingsError(
            f"The slice {by!r} is a column of a table, and the images were not read from one.",
            f"images from a CSV file with that column, or one of {', '.join(KINDS)}",
            "name the table: `regraft evaluate RUN TABLE.csv --slice COLUMN`",
        )
    with table.open(encoding="utf-8-sig", newline="") as stream:
        top = stream.readline()
        stream.seek(0)
        delimiter = max(_DELIMITERS, key=top.count)
        rows = list(csv.DictReader(stream, delimiter=delimiter, skipinitialspace=True))
    header = [name for name in (rows[0] if rows else {}) if name]
    if by not in header:
        raise SettingsError(
            f"{str(table)!r} has no column {by!r}.", f"one of: {', '.join(header)}", f"or {', '.join(KINDS)}"
        )
    cells = [{name: (row[name] or "").strip() for name in header} for row in rows]
    key = max(header, key=_num_named(paths, cells))
    values = {cell[key]: cell[by] or _NO_VALUE for cell in cells}
    found = [next((values[end] for end in _ends(path) if end in values), None) for path in paths]
    return [_NO_VALUE if value is None else value for value in found]


def _num_named(paths: Sequence[str], cells: Sequence[dict[str, str]]) -> Callable[[str], int]:
    """Return how many of the images a column names: the one that names most of them holds their paths."""
    counts: Counter[str] = Counter()
    ends = {end for path in paths for end in _ends(path)}
    for row in cells:
        counts.update(name for name, cell in row.items() if cell in ends)
    return lambda name: counts[name]


def _ends(path: str) -> list[str]:
    """Return a path and what is left of it without its first folders, the longest first."""
    parts = Path(path).parts
    return [path, *("/".join(parts[first:]) for first in range(1, len(parts)))]
