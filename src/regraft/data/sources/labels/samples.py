"""Samples as WebDataset has them: an image and its label side by side, `key.jpg` with `key.cls`, `.json` or `.txt`.

They lie in one archive, in many (shards, by a pattern or in a folder), or in a folder. Tables with a column of images,
one or many, are read likewise.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from regraft.data.decode.image_file import read_file
from regraft.data.files import access
from regraft.data.files.archive_kinds import is_table_of_images
from regraft.data.files.arrow_tables import IMAGE_COLUMNS, image_name, table_labels
from regraft.data.files.shards import archives_like, is_pattern, looks_packed
from regraft.data.sources.bad_rows import BadRows
from regraft.data.sources.labels.columns import LABELS
from regraft.data.sources.labels.label_cells import Column
from regraft.data.sources.labels.records import Record
from regraft.data.sources.listing import SPLIT_WORDS, quoted
from regraft.data.sources.walk import is_hidden, is_picture_name
from regraft.errors import DataError

__all__ = ["SampleReader", "Samples", "find_samples"]

_LABELS = (".cls", ".json", ".txt")
_KEYS = ("cls", *LABELS)
_MANY_LABELS = ("labels", "tags", "classes", "categories", "fine_label", "coarse_label")
_STATE, _SPLITS = "state.json", "dataset_dict.json"  # of Hugging Face's library
_LOOKED_AT = 20
_LONGEST = 200  # characters of a label
_FEW = 5
_STEM = re.compile(r"[a-z]+")


@dataclass(frozen=True)
class Samples:
    """Where samples lie.

    Attributes:
        root: What paths are relative to where they are written.
        places: The archives or folders, each with its split; "" where it has yet to be divided.
    """

    root: Path
    places: tuple[tuple[str, Path], ...]


def find_samples(source: Path) -> Samples | None:
    """Return where the samples of a source lie; None for a source of another kind.

    Raises:
        DataError: A pattern names archives that are not there.
    """
    if is_pattern(os.fspath(source)) and not access.exists(source):
        return _of_pattern(source)
    if not access.is_folder(source):
        return None
    shards = _saved_in(source) or _shards_in(source)
    if not shards:
        return Samples(source, (("", source),)) if _has_samples(source) else None
    return Samples(source, tuple(shards)) if _has_samples(shards[0][1]) else None


class SampleReader:
    """The images with their labels: archive after archive, in each by path or by row.

    Args:
        samples: Where they lie.
        bad: Where images without a label go, and labels that cannot be read.

    Attributes:
        names: What numbers stand for, as tables say it; empty where none does.
        warnings: What a person should know of them, after they have been read.
    """

    def __init__(self, samples: Samples, bad: BadRows) -> None:
        self.names: tuple[str, ...] = ()
        self.warnings: list[str] = []
        self._samples, self._bad = samples, bad

    def __iter__(self) -> Iterator[Record]:
        for split, place in self._samples.places:
            if is_table_of_images(os.fspath(place)):
                yield from self._rows(split, place)
                continue
            for folder, names in access.walk(place):
                yield from _in_folder(folder, sorted(names), split, self._bad)

    def _rows(self, split: str, place: Path) -> Iterator[Record]:
        columns = [name for name in access.names_in(place) if not is_hidden(name)]
        if not columns:
            self._bad.add(place, None, "tables without images", "has no column of images that has a name")
            return
        column = next((name for name in IMAGE_COLUMNS if name in columns), columns[0])
        labels = table_labels(os.fspath(place), (*LABELS, *_MANY_LABELS))
        if labels is None or (split == "test" and not any(map(_is_label, labels.values))):
            if split == "test":
                self.warnings.append(f"{place.name} has no labels and was left out.")
            else:
                self._bad.add(place, None, "tables without labels", "has no column of a name such as label")
            return
        if self.names and labels.names != self.names:
            self._bad.add(place, None, "other classes", f"has classes of other names in {labels.column!r}")
        self.names = labels.names
        kind = Column(labels.column, any(isinstance(value, list) for value in labels.values))
        for row, value in enumerate(labels.values):
            path = os.path.join(place, column, image_name(row))
            yield Record(place, row + 1, path, _written(value), split, column=kind)


def _of_pattern(source: Path) -> Samples | None:
    found, lost = archives_like(os.fspath(source))
    if lost or not found:
        raise DataError(
            f"{len(lost)} archives of {source.name!r} are not there: {quoted(map(os.path.basename, lost), _FEW)}."
            if lost
            else f"No archive fits the pattern {os.fspath(source)!r}.",
            "archives .tar, .tar.gz or .zip, by a pattern such as data-{000..099}.tar",
            "check the spelling, and the first and the last number",
        )
    return Samples(source.parent, tuple(("", Path(path)) for path in found))


def _shards_in(folder: Path) -> list[tuple[str, Path]]:
    """Return the archives in a folder on the disk, or in its folders for the splits, each with its split."""
    if not folder.is_dir():
        return []
    own = [("", path) for path in _packed_in(folder)]
    for child in sorted(folder.iterdir()):
        if child.name.lower() in SPLIT_WORDS and child.is_dir():
            own += [(SPLIT_WORDS[child.name.lower()], path) for path in _packed_in(child)]
    named = [(split or _split_of(path.name), path) for split, path in own]
    return named if all(split for split, _ in named) else [("", path) for _, path in named]


def _saved_in(folder: Path) -> list[tuple[str, Path]]:
    """Return the files of a data set that Hugging Face's library saved to a folder, in their order, with their splits.

    Raises:
        DataError: Its splits have other names than train, val and test.
    """
    if access.has_file(folder, _STATE):
        names = _read_json(folder / _STATE).get("_data_files")
        files = [str(dict(item).get("filename")) for item in names] if isinstance(names, list) else []
        return [("", folder / name) for name in files if os.path.basename(name) == name]
    splits = _read_json(folder / _SPLITS).get("splits") if access.has_file(folder, _SPLITS) else None
    named = [str(name) for name in splits] if isinstance(splits, list) else []
    strange = [name for name in named if name.lower() not in SPLIT_WORDS]
    if strange:
        raise DataError(
            f"{os.fspath(folder)!r} has splits that are called {quoted(strange)}.",
            "train, validation and test",
            f"give the folder of one of them, such as {os.fspath(folder / named[0])!r}",
        )
    return [(SPLIT_WORDS[name.lower()], path) for name in named for _, path in _saved_in(folder / name)]


def _read_json(path: Path) -> dict[str, Any]:
    data = read_file(path)
    try:
        values = json.loads(data) if isinstance(data, bytes) else {}
    except (ValueError, RecursionError):
        return {}
    return values if isinstance(values, dict) else {}


def _packed_in(folder: Path) -> list[Path]:
    names = (name for name in access.names_in(folder) if looks_packed(name) and not is_hidden(name))
    return [folder / name for name in names if access.is_folder(folder / name)]


def _split_of(name: str) -> str:
    word = _STEM.match(name.lower())
    return SPLIT_WORDS.get(word[0], "") if word else ""


def _has_samples(place: Path) -> bool:
    """Return whether the first images below a place have their labels beside them."""
    if is_table_of_images(os.fspath(place)):
        return True
    num = 0
    for _, names in access.walk(place):
        labels = {_key(name) for name in names if name.lower().endswith(_LABELS)}
        for name in islice((name for name in sorted(names) if _is_image(name)), _LOOKED_AT - num):
            if _key(name) not in labels:
                return False
            num += 1
        if num >= _LOOKED_AT:
            break
    return num > 0


def _in_folder(folder: str, names: list[str], split: str, bad: BadRows) -> Iterator[Record]:
    beside: dict[str, dict[str, str]] = {}
    for name in names:
        end = os.path.splitext(name)[1].lower()
        if end in _LABELS and not is_hidden(name):
            beside.setdefault(_key(name), {})[end] = name
    before = ""
    for name in filter(_is_image, names):
        path, key = os.path.join(folder, name), _key(name)
        if key == before:
            bad.add(Path(path), None, "several images of one sample", f"is a second image of the sample {key!r}")
            continue
        before = key
        own = next((beside[key][end] for end in _LABELS if end in beside.get(key, {})), None)
        if own is None:
            bad.add(Path(path), None, "images without a label", f"has no label beside it, such as {key}.cls")
            continue
        label = _label(os.path.join(folder, own), bad)
        if label is not None:
            yield Record(Path(folder, own), 1, path, label, split)


def _label(path: str, bad: BadRows) -> str | None:
    """Return the label in a file; None for one without, which is reported."""
    data = read_file(path)
    reason = data if isinstance(data, str) else ""
    label: str | None = None
    if isinstance(data, bytes):
        try:
            text = data.decode("utf-8-sig").strip()
            label = _of_json(json.loads(text)) if path.lower().endswith(".json") else text
        except (ValueError, RecursionError) as error:
            reason = f"cannot be read as a label ({' '.join(str(error).split())[:80]})"
    if label is not None and (len(label) > _LONGEST or "\n" in label):
        reason = f"holds {len(label)} characters, a text and not a label"
    if label is None or reason:
        bad.add(Path(path), None, "labels that cannot be read", reason or f"has no key such as {quoted(_KEYS[:3])}")
        return None
    return label


def _is_label(value: Any) -> bool:
    return value is not None and value != -1  # what a ClassLabel without a label holds


def _written(value: Any) -> str:
    """Return the label of a table's row as a list would write it."""
    if not _is_label(value):
        return ""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _of_json(values: Any) -> str | None:
    """Return the label of a JSON file: all of it, or under a name such as `label`."""
    if isinstance(values, dict):
        values = next((values[key] for key in _KEYS if key in values), None)
    if values is None or isinstance(values, dict):
        return None
    return values if isinstance(values, str) else json.dumps(values, ensure_ascii=False)


def _is_image(name: str) -> bool:
    return is_picture_name(name) and not is_hidden(name)


def _key(name: str) -> str:
    """Return the name of a sample: that of its files up to their first dot."""
    return name.partition(".")[0]
