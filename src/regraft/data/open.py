"""`open_data`: from a source of any kind to named, divided rows."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from regraft.data.class_table import ClassTable
from regraft.data.dataset import SPLITS, DataSet, Origin, Split
from regraft.data.files import access
from regraft.data.groups.names import Place
from regraft.data.groups.rows import classes_of_one_group, with_groups
from regraft.data.labels import Labels, class_counts, labels_from_places, no_labels
from regraft.data.paths import Paths
from regraft.data.sources.far import far_source, is_far
from regraft.data.sources.labels.find import list_source, says_labels
from regraft.data.sources.labels.tool_labels import list_tool_labels
from regraft.data.sources.listing import Listing
from regraft.data.sources.masks.mask_listing import Classes, list_masks
from regraft.data.sources.masks.tool_listing import list_tool_masks
from regraft.data.sources.not_data import require_file, require_no_archive
from regraft.data.sources.packed import archive_notes, source_name, source_root
from regraft.data.sources.tool_files import ToolSource, find_tool, named_tool
from regraft.data.split import divide, folds
from regraft.errors import SettingsError, require_type
from regraft.machine.heap import return_freed_memory
from regraft.settings.data import FRACTIONS, DataSettings
from regraft.settings.strict import checked

__all__ = ["open_data", "open_undivided"]

_MANY = 100_000  # files, whose listing leaves tens of MB of holes behind


def open_data(
    source: str | os.PathLike[str],
    *,
    seed: int = 0,
    fractions: Sequence[float] = FRACTIONS,
    labels: str | os.PathLike[str] | None = None,
    names: str | os.PathLike[str] | None = None,
    fold: Sequence[int] | None = None,
    group: str | None = None,
    masks: str | os.PathLike[str] | None = None,
    class_table: str | os.PathLike[str] | Sequence[Any] | None = None,
    ignore: object = None,
) -> DataSet:
    """Return the labelled files of a source, divided into splits.

    A source is a folder of classes (`source/class/*` or `source/{train,val,test}/class/*`), a list of lines
    `path label`, a table (`path,label[,split]`, CSV or TSV), a folder with one list or table for each split, or a
    folder of images with a list of labels. For segmentation it is a folder of images and masks: `images/` and
    `masks/`, in each split's folder or beside each other, `train/` and `trainannot/`, VOC, or COCO. `docs/data.md`
    shows each.

    Splits that the source has are kept as they are. What is missing is drawn, stratified, as a function of the seed:
    all three splits where there are none, and the validation split where there is only `train`.
    No file is decoded yet: `regraft.data.decode_all.decode_all` does that and quarantines what cannot be read.

    Args:
        source: A folder, or a list.
        seed: Which of the possible splits to draw.
        fractions: Shares of train, val and test; a split with the share 0 is left out.
        labels: The list that says the labels of the images in a folder; found by itself under one of the usual names.
        names: A file with the names of labels that are numbers, one a line; likewise.
        fold: (k, K): of K folds that are drawn from everything but a test split, fold k (from 0) is for validation and
            the rest for training.
        group: What is never divided between splits or folds: images with the same cell in a column of the table, in the
            same folder (`folder`), or with the same match of a regular expression in their paths, such as
            `patient[0-9]+`.
        masks: Where the masks of a folder of images lie: a folder, a JSON file of COCO, or a pattern of names such as
            `*_mask.png`; found by itself under the usual names.
        class_table: What stands in masks for which class: a file, or a list of names or of rows such as
            `{"name": "road", "value": 3, "colour": [128, 64, 128]}`; found by itself under the usual names.
        ignore: What counts for nothing in masks: a value, a colour, the name of a class, or a list of such.

    Raises:
        DataError: If the source is no usable data set; all mistakes at once.
        SettingsError: If the fractions are not shares that add up to 1, or there is no such fold or group.
    """
    require_type(source, (str, os.PathLike), "source", "give the path of a folder, a list or a table")
    split = checked(DataSettings, "open_data", {"fractions": fractions, "fold": fold, "group": group})
    given = _source(source)
    root = source_root(given)
    files = {"labels": _beside(labels, root), "names": _beside(names, root)}
    require_file(files)
    table = _beside(class_table, root) if isinstance(class_table, (str, os.PathLike)) else class_table
    said = {"masks": masks, "class_table": table, "ignore": ignore}
    listing = _listing(root, files, said, group=split.group)
    rows, told = _splits(listing), listing.warnings
    if split.group is not None:
        rows, more = with_groups(rows, Place(root, listing.root, files["labels"]), split.group)
        told = (*told, *more)
    listing = replace(listing, warnings=told)
    data = (
        _divided(listing, rows, seed, split.fractions)
        if split.fold is None
        else _folded(listing, rows, seed, split.fold)
    )
    options = {
        "fractions": list(split.fractions),
        **{key: os.fspath(path) for key, path in files.items() if path is not None},
        **({"fold": list(split.fold)} if split.fold is not None else {}),
        **({"group": split.group} if split.group is not None else {}),
        **{key: _plain(value) for key, value in said.items() if value is not None},
    }
    said_as = os.fspath(source) if is_far(os.fspath(source)) else os.fspath(given)
    warnings = (*archive_notes(given), *data.warnings)
    if sum(map(len, data.splits.values())) > _MANY:
        del listing, rows
        return_freed_memory()
    return replace(data, name=source_name(given), source=said_as, options=options, warnings=warnings)


def open_undivided(
    source: str | os.PathLike[str],
    *,
    labels: str | os.PathLike[str] | None = None,
    names: str | os.PathLike[str] | None = None,
    masks: str | os.PathLike[str] | None = None,
    class_table: str | os.PathLike[str] | Sequence[Any] | None = None,
    ignore: object = None,
    usual_table: ClassTable | None = None,
) -> DataSet:
    """Return the labelled files of a source as it gives them, for measuring: one class is enough, and nothing is drawn.

    Args:
        source: As for `open_data`.
        labels: As for `open_data`.
        names: As for `open_data`.
        masks: As for `open_data`.
        class_table: As for `open_data`.
        ignore: As for `open_data`.
        usual_table: What stands in masks that come without a list of classes.

    Returns:
        A data set with the splits that the source has; where it has none, everything is `test`.

    Raises:
        DataError: If the source has no labelled images; all mistakes at once.
    """
    root = source_root(_source(source))
    files = {"labels": _beside(labels, root), "names": _beside(names, root)}
    require_file(files)
    said = {"masks": masks, "class_table": class_table, "ignore": ignore}
    listing = _listing(root, files, said, usual=usual_table, for_training=False)
    splits = {name or "test": split for name, split in _splits(listing).items()}
    return _data_set(listing, splits, listing.warnings, "lists" if listing.listed else "folders", seed=0)


def _source(given: str | os.PathLike[str]) -> Path:
    """Return the path of a data set; what lies behind an address has one in the cache.

    Raises:
        DataError: The address cannot be listed, or it is an archive of a kind that is not read in place.
    """
    if is_far(os.fspath(given)):
        return far_source(os.fspath(given))
    path = _path(given)
    require_no_archive(path)
    return path


def _path(given: str | os.PathLike[str]) -> Path:
    return Path(os.path.abspath(Path(given).expanduser()))


def _beside(given: str | os.PathLike[str] | None, source: Path) -> Path | None:
    """Return a file that may be named as the working folder sees it, or as the source's folder does."""
    if given is None:
        return None
    path = _path(given)
    folder = source if access.is_folder(source) else source.parent
    is_pattern = path.name.startswith("*") and bool(access.files_like(folder, os.fspath(given)))
    return path if access.exists(path) or not (is_pattern or access.exists(folder / given)) else folder / given


def _listing(
    root: Path,
    files: Mapping[str, Path | None],
    said: Mapping[str, Any],
    *,
    usual: ClassTable | None = None,
    group: str | None = None,
    for_training: bool = True,
) -> Listing:
    """Return the listing of a source of any kind: images with labels, or with masks."""
    masks = None if said["masks"] is None else os.fspath(said["masks"])
    tool = _named_tool(root, files["labels"], masks)
    if tool is None and files["labels"] is None and access.is_folder(root):
        listing = list_masks(root, masks, _classes(root, files["names"], said, usual))
        if listing is not None:
            return listing
    if tool is None and files["labels"] is None and not says_labels(root):
        tool = find_tool(root)
    if tool is not None and tool.purpose == "masks":
        return list_tool_masks(root, tool, _classes(root, files["names"], said, usual))
    given = [f"data.{key}" for key, value in said.items() if value is not None]
    if given:
        raise SettingsError(
            f"{', '.join(given)} was given, and {os.fspath(root)!r} is not a folder of images and masks.",
            "images/ and masks/, train/ and trainannot/, VOC, or COCO",
            "point to the masks (`--masks FOLDER`), or leave this out",
        )
    if tool is not None:
        return list_tool_labels(root, tool, for_training=for_training)
    labels, names = files["labels"], files["names"]
    return list_source(root, labels=labels, names=names, group=group, for_training=for_training)


def _named_tool(root: Path, labels: Path | None, masks: str | None) -> ToolSource | None:
    """Return the label tool's files that were named as labels or as masks; None where other ones were, or none."""
    if labels is not None:
        return named_tool(root, labels, "labels")
    return None if masks is None else named_tool(root, masks, "masks")


def _classes(root: Path, names: Path | None, said: Mapping[str, Any], usual: ClassTable | None) -> Classes:
    table, ignore = said["class_table"], said["ignore"]
    if table is not None and names is not None:
        raise SettingsError(
            "Both data.names and data.class_table were given.",
            "masks have one list of classes",
            "leave data.names out",
        )
    if isinstance(table, (str, os.PathLike)):
        table = _beside(table, root)
    items = ignore if isinstance(ignore, (list, tuple)) else [] if ignore is None else [ignore]
    return Classes(names if table is None else table, tuple(items), usual)


def _plain(value: Any) -> Any:
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def _splits(listing: Listing) -> dict[str, Split]:
    if listing.class_table is not None:
        num = len(listing.class_names)
        return {
            name: Split(paths, no_labels(len(paths), num), listing.masks[name])
            for name, (paths, _) in listing.rows.items()
        }
    return {
        name: Split(paths, labels_from_places(labels, len(listing.class_names), multilabel=listing.multilabel))
        for name, (paths, labels) in listing.rows.items()
    }


def _data_set(
    listing: Listing, splits: Mapping[str, Split], warnings: Iterable[str], origin: Origin, *, seed: int
) -> DataSet:
    return DataSet(
        name=Path(listing.root).name,
        root=listing.root,
        class_names=listing.class_names,
        splits={name: splits[name] for name in SPLITS if name in splits},
        warnings=tuple(warnings),
        ignored=dict(listing.ignored),
        split_origin=origin,
        seed=seed,
        class_table=listing.class_table,
    )


def _divided(listing: Listing, given: dict[str, Split], seed: int, fractions: tuple[float, ...]) -> DataSet:
    warnings = list(listing.warnings)
    origin: Origin = "lists" if listing.listed else "folders"
    if "" in given:
        whole = given[""]
        parts = divide(whole.labels, fractions, seed=seed, groups=whole.groups)
        given = {
            name: whole.take(part)
            for name, part, share in zip(SPLITS, parts, fractions, strict=True)
            if len(part) or (share and name != "test")
        }
        warnings += _single_warnings(listing.class_names, whole)
        origin = "random"
    elif "val" not in given:
        train = given["train"]
        share = fractions[1] / (fractions[0] + fractions[1])
        parts = divide(train.labels, (1 - share, share), seed=seed, groups=train.groups)
        given |= {name: train.take(part) for name, part in zip(("train", "val"), parts, strict=True)}
        warnings.append(
            f"There is no validation {'list' if listing.listed else 'folder'}: {len(given['val'])} of {len(train)} "
            f"training images were drawn for validation (seed {seed})."
        )
        origin = "random"
    elif fractions != FRACTIONS:
        warnings.append("data.fractions has no effect: the source has its own training and validation splits.")
    return _data_set(listing, given, warnings, origin, seed=seed)


def _folded(listing: Listing, given: dict[str, Split], seed: int, fold: tuple[int, int]) -> DataSet:
    """Return one fold of a cross-validation over everything but the test split."""
    pool = [split for name, split in given.items() if name != "test"]
    labels: Labels = np.concatenate([split.labels for split in pool])
    paths = Paths.joined(Paths.of(split.paths) for split in pool)
    groups = [split.groups for split in pool if split.groups is not None]
    masks = Paths.joined(Paths.of(split.masks) for split in pool)
    whole = Split(paths, labels, masks, np.concatenate(groups) if groups else None)
    number = folds(whole.labels, fold[1], seed, groups=whole.groups)
    splits = {
        "train": whole.take(np.flatnonzero(number != fold[0])),
        "val": whole.take(np.flatnonzero(number == fold[0])),
        **({"test": given["test"]} if "test" in given else {}),
    }
    warnings = [*listing.warnings, *_single_warnings(listing.class_names, whole)]
    return _data_set(listing, splits, warnings, "folds", seed=seed)


def _single_warnings(class_names: tuple[str, ...], split: Split) -> list[str]:
    counts = class_counts(split.labels, len(class_names))
    single = [repr(name) for name, count in zip(class_names, counts, strict=True) if count == 1]
    of_one = classes_of_one_group(split)
    whole = [repr(name) for place, name in enumerate(class_names) if place in of_one and counts[place] > 1]
    told = []
    if single:
        told.append(f"Classes with one image, which goes to train and is never validated: {', '.join(single)}.")
    if whole:
        told.append(f"Classes with one group, which goes to train and is never validated: {', '.join(whole)}.")
    return told
