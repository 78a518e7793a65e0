"""Which kind of source a path is: a folder of classes, a list, lists for each split, images beside a list, or samples
with their labels beside them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from regraft.data.decode.sniff import known_format
from regraft.data.files import access
from regraft.data.files.archive_kinds import is_table_of_images
from regraft.data.sources.bad_rows import BadRows
from regraft.data.sources.labels.folder import has_class_folders, list_folder
from regraft.data.sources.labels.locate import Locator
from regraft.data.sources.labels.names import find_names, read_names
from regraft.data.sources.labels.path_label_list import read_lines
from regraft.data.sources.labels.records import Names, Record, list_records
from regraft.data.sources.labels.samples import SampleReader, Samples, find_samples
from regraft.data.sources.labels.table import Table, is_table
from regraft.data.sources.listing import SPLIT_WORDS, Listing, quoted
from regraft.errors import DataError

__all__ = ["LIST_SUFFIXES", "folders_of", "list_source", "lists_of", "near_of", "says_labels"]

LIST_SUFFIXES = (".csv", ".tsv", ".txt", ".lst")
_ONE_HOT = "_classes.csv"  # of Roboflow, in the folder of each split
_OF_TRAINING = {"trainlabels": "train"}  # of Kaggle, beside train/ and test/, whose ids may be the same
_LABEL_LISTS = ("labels", "label", "metadata", "annotations", "trainlabels", "imagelabels")


def list_source(
    source: Path,
    *,
    labels: Path | None = None,
    names: Path | None = None,
    group: str | None = None,
    for_training: bool = True,
) -> Listing:
    """Return the labelled files of a source of any kind, by absolute path.

    Args:
        source: A folder or a list.
        labels: A list that says the labels of the images in the folder `source`.
        names: A file with the names of labels that are numbers.
        group: A column of a table that is used for something else.
        for_training: Whether the classes must be enough to train on.

    Raises:
        DataError: With every mistake at once.
    """
    if access.is_folder(source):
        is_table = labels is None and is_table_of_images(os.fspath(source))
        found = _lists_in(source) if labels is None and not is_table else {}
        is_other = labels is not None or bool(found) or (not is_table and has_class_folders(source))
        samples = None if is_other else find_samples(source)
        if samples is not None:
            return _sampled(source, samples, names, for_training=for_training)
        if labels is None and (not found or has_class_folders(source)):
            listing = list_folder(source, for_training=for_training)
            return replace(listing, warnings=(*listing.warnings, *_unused(found, names)))
        lists = {"": labels} if labels is not None else _one_for_each(source, found)
        return _listed(source, lists, names, group, for_training=for_training)
    if access.is_file(source) and not _is_picture(source):
        if labels is not None:
            raise DataError(
                f"{str(source)!r} is a list, and another list of labels was given, {str(labels)!r}.",
                "images have one list of labels",
                "give the folder of the images, or leave data.labels out",
            )
        lists = {"": source}
        return _listed(source, lists, names, group, for_training=for_training)
    samples = find_samples(source)
    if samples is not None:
        return _sampled(source, samples, names, for_training=for_training)
    return list_folder(source, for_training=for_training)  # tells what is wrong with the path


def lists_of(source: Path, labels: Path | None = None) -> dict[str, Path]:
    """Return the lists that say the labels of a source, by split ("" for all images); none for folders of classes."""
    if labels is not None or not access.is_folder(source):
        return {"": labels or source}
    found = _lists_in(source)
    return _one_for_each(source, found) if found and not has_class_folders(source) else {}


def says_labels(source: Path) -> bool:
    """Return whether folders of classes, or lists under one of the default names, say the labels of a folder."""
    return access.is_folder(source) and (bool(_lists_in(source)) or has_class_folders(source))


def near_of(split: str, path: Path) -> str:
    """Return the folder that the images of a list may lie in beside those of all lists: its own one, or one of its
    name.
    """
    if path.name.lower() == _ONE_HOT:
        return os.fspath(path.parent)
    stem = path.stem.lower().replace("_", "").replace("-", "")
    return path.stem if split else _OF_TRAINING.get(stem, "")


def folders_of(source: Path, lists: dict[str, Path]) -> list[Path]:
    """Return the folders that the paths of lists are relative to."""
    inside = [source] if access.is_folder(source) else []
    return [*inside, *dict.fromkeys(path.parent for path in lists.values())]


def _unused(lists: dict[str, list[Path]], names: Path | None) -> Iterator[str]:
    """Yield what has no effect beside class folders."""
    if lists:
        unused = quoted(path.name for paths in lists.values() for path in paths)
        yield f"{unused} next to the class folders was not used; name it with data.labels to use it."
    if names is not None:
        yield f"{names.name} was not used: the names of the classes are those of their folders."


def _listed(
    source: Path, lists: dict[str, Path], names: Path | None, group: str | None, *, for_training: bool
) -> Listing:
    folders = folders_of(source, lists)
    missing = [path for path in (*lists.values(), *([names] if names else ())) if not access.is_file(path)]
    if missing:
        raise DataError(
            f"There is no file {str(missing[0])!r}.",
            "a list of labels, or of class names",
            "check the spelling of data.labels and data.names",
        )
    root = os.fspath(folders[0])
    bad = BadRows()
    locator = Locator([os.fspath(folder) for folder in folders])
    warnings: list[str] = []
    records = _records(lists, bad, locator, warnings, group)
    listing = list_records(records, root, locator, bad, _names(lists, names), for_training=for_training)
    if not len(bad) and not listing.rows:
        bad.add(next(iter(lists.values())), None, "empty lists", "has no rows")
    if len(bad):
        raise bad.error(source, root)
    return replace(listing, warnings=(*warnings, *_beside(source, lists), *listing.warnings))


def _sampled(source: Path, samples: Samples, names: Path | None, *, for_training: bool) -> Listing:
    root, bad = os.fspath(samples.root), BadRows()
    reader = SampleReader(samples, bad)
    records = list(reader)
    given = names or (None if reader.names else find_names(samples.root))
    known = None if given is None else Names(given, read_names(given), names is not None)
    if known is None and reader.names:
        known = Names(samples.places[0][1], dict(enumerate(reader.names)), given=False)
    listing = list_records(records, root, Locator([root]), bad, known, for_training=for_training)
    if len(bad):
        raise bad.error(source, root)
    return replace(listing, warnings=(*reader.warnings, *listing.warnings))


def _records(
    lists: dict[str, Path], bad: BadRows, locator: Locator, warnings: list[str], group: str | None
) -> Iterator[Record]:
    for split, path in lists.items():
        near = near_of(split, path)
        if not is_table(path):
            yield from read_lines(path, bad, split=split, near=near)
            continue
        table = Table(path, bad, locator, split=split, near=near, group=group)
        yield from table
        warnings += table.warnings
        if not table.has_labels:
            warnings.append(f"{path.name} has no labels and was left out.")


def _names(lists: dict[str, Path], given: Path | None) -> Names | None:
    path = given or find_names(next(iter(lists.values())).parent)
    if path is None or path in lists.values():
        return None
    return Names(path, read_names(path), given is not None)


def _lists_in(folder: Path) -> dict[str, list[Path]]:
    """Return the lists in a folder under one of the default names, by split; "" for one of all images."""
    found: dict[str, list[Path]] = {}
    for name in access.names_in(folder):
        stem, suffix = os.path.splitext(name.lower())
        stem = stem.replace("_", "").replace("-", "")
        is_label_list = name.lower() == _ONE_HOT or (stem in _LABEL_LISTS and suffix in (".csv", ".tsv"))
        if (
            suffix not in LIST_SUFFIXES
            or not (stem in SPLIT_WORDS or is_label_list)
            or not access.has_file(folder, name)
        ):
            continue
        found.setdefault(SPLIT_WORDS.get(stem, ""), []).append(folder / name)
    if not found:
        for name in access.names_in(folder):
            if name.lower() in SPLIT_WORDS and access.has_file(folder / name, _ONE_HOT):
                found.setdefault(SPLIT_WORDS[name.lower()], []).append(folder / name / _ONE_HOT)
    return found


def _one_for_each(folder: Path, found: dict[str, list[Path]]) -> dict[str, Path]:
    """Return one list for each split, or one for all images."""
    splits = [split for split in ("train", "val", "test") if split in found]
    chosen = splits if "train" in splits or "" not in found else [""]
    for split in chosen:
        if len(found[split]) > 1:
            raise DataError(
                f"{str(folder)!r} has several lists: {quoted(path.name for path in found[split])}.",
                "one for each split, or one for all images",
                f"name it: `--set data.labels={found[split][0]}`, or move the others away",
            )
    return {split: found[split][0] for split in chosen}


def _beside(source: Path, lists: dict[str, Path]) -> Iterator[str]:
    """Yield what a list that was given alone leaves out."""
    if access.is_file(source) and SPLIT_WORDS.get(source.stem.lower()) == "train":
        others = [
            path.name
            for path in (source.parent / name for name in access.names_in(source.parent))
            if path.suffix == source.suffix and SPLIT_WORDS.get(path.stem.lower()) in ("val", "test")
        ]
        if others:
            yield f"{quoted(others)} beside {source.name} was not used; give the folder to use all of them."


def _is_picture(path: Path) -> bool:
    try:
        with access.open_bytes(path) as file:
            return known_format(file.read(32)) is not None
    except OSError:
        return False
