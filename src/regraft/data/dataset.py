"""A labelled set of image files: class names, splits, and an account of everything that was left out."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from regraft.data.class_table import ClassTable
from regraft.data.files import access
from regraft.data.labels import (
    Labels,
    are_multilabel,
    class_counts,
    label_names,
    labels_from_names,
    no_labels,
)
from regraft.data.paths import Paths
from regraft.errors import DataError
from regraft.summary import Summary

__all__ = ["SPLITS", "DataSet", "Origin", "Quarantined", "Split"]

Origin = Literal["folders", "lists", "random", "folds"]
SPLITS = ("train", "val", "test")
_ORIGINS: dict[str, Origin] = {origin: origin for origin in get_args(Origin)}


@dataclass(frozen=True)
class Quarantined:
    """One file that is listed and cannot be used, and why."""

    path: str
    reason: str
    split: str


@dataclass(frozen=True, eq=False)
class Split:
    """The rows of one split: absolute paths, and as many labels; in segmentation, as many masks.

    Labels are class numbers, int64 of shape (rows,), or, where an image may have any number of classes, uint8 of shape
    (rows, classes) with 1 for each class that it has; in segmentation these are the classes that its mask has, all 0
    until the masks are read. Masks are absolute paths for `read_mask`; empty in classification. Rows with the same
    number in `groups` belong together; None where nothing was said of groups.
    """

    paths: Sequence[str]
    labels: Labels
    masks: Sequence[str] = ()
    groups: npt.NDArray[np.int64] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "paths", Paths.of(self.paths))
        object.__setattr__(self, "masks", Paths.of(self.masks))

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, rows: npt.NDArray[np.int64]) -> Split:
        """Return the rows with these numbers, in this order."""
        masks = Paths.of(self.masks).take(rows) if self.masks else ()
        groups = None if self.groups is None else self.groups[rows]
        return Split(Paths.of(self.paths).take(rows), self.labels[rows], masks, groups)


@dataclass(frozen=True, eq=False, repr=False)
class DataSet(Summary):
    """What `open_data` found.

    Args:
        name: The name of the source.
        root: The absolute path of the folder that paths are relative to where they are written.
        class_names: In plain string order, or in that of their numbers or of a file of names; a label is a position.
        splits: `train`, `val` and, where there is one, `test`.
        warnings: Sentences for people.
        ignored: How many files and folders were left out, by reason.
        quarantined: Files that turned out to be unreadable.
        split_origin: `folders` or `lists` where the source says the splits; `random` where regraft drew at least one
            itself; `folds` for one fold of a cross-validation.
        seed: The seed of that draw.
        source: What was opened, as an absolute path; empty means `root`.
        options: What else `open_data` was given: fractions, labels, names, fold, group, masks, class_table, ignore.
        class_table: In segmentation, what stands in the masks; else None.
    """

    name: str
    root: str
    class_names: tuple[str, ...]
    splits: dict[str, Split]
    warnings: tuple[str, ...] = ()
    ignored: dict[str, int] = field(default_factory=dict)
    quarantined: tuple[Quarantined, ...] = ()
    split_origin: Origin = "folders"
    seed: int = 0
    source: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    class_table: ClassTable | None = None

    @property
    def train(self) -> Split:
        """The rows to train on."""
        return self.splits["train"]

    @property
    def val(self) -> Split:
        """The rows to select by."""
        return self.splits["val"]

    @property
    def test(self) -> Split | None:
        """The rows for the final figure, where there are any."""
        return self.splits.get("test")

    @property
    def segmentation(self) -> bool:
        """Whether each image has a mask, which gives each pixel a class."""
        return self.class_table is not None

    @property
    def multilabel(self) -> bool:
        """Whether an image may have any number of classes; labels then have the shape (rows, classes)."""
        return not self.segmentation and any(are_multilabel(split.labels) for split in self.splits.values())

    @property
    def num_groups(self) -> int | None:
        """How many groups the images of all splits are of; None where nothing was said of groups."""
        known = [split.groups for split in self.splits.values() if split.groups is not None]
        return len(np.unique(np.concatenate(known))) if known else None

    def facts(self) -> dict[str, object]:
        """Return its name, its classes, and how many images each split has."""
        kind = "masks" if self.segmentation else "multi-label" if self.multilabel else "classes"
        return {
            "name": self.name,
            "labels": kind,
            "classes": _named(self.class_names),
            **{name: len(split) for name, split in self.splits.items()},
            **({"groups": self.num_groups} if self.num_groups is not None else {}),
            **({"unreadable": len(self.quarantined)} if self.quarantined else {}),
        }

    def counts(self, split: str) -> npt.NDArray[np.int64]:
        """Return the number of images of each class in one split, in the order of `class_names`."""
        return class_counts(self.splits[split].labels, len(self.class_names))

    def without(self, quarantined: Iterable[Quarantined]) -> DataSet:
        """Return the same data set with these files moved from their splits to the quarantine."""
        leaving = tuple(quarantined)
        splits = dict(self.splits)
        for name, split in self.splits.items():
            gone = {item.path for item in leaving if item.split == name}
            if gone:
                splits[name] = split.take(np.flatnonzero([path not in gone for path in split.paths]))
        return replace(self, splits=splits, quarantined=self.quarantined + leaving)

    def to_dict(self) -> dict[str, Any]:
        """Return the contents of splits.json: paths relative to `root` where they lie below it, labels as names.

        A row is [path, name], or [path, [name, ...]] where an image may have any number of classes, or [path, mask].
        """
        return _stored(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> DataSet:
        """Return the data set that `to_dict` described; files are not looked at.

        Raises:
            DataError: If the fields are not those of a splits.json.
        """
        return _restored(fields)

    def settings(self) -> dict[str, Any]:
        """Return the data set's part of a recipe, as plain data."""
        return {"source": self.source or self.root, **self.options}

    def moved_to(self, source: str | None) -> DataSet:
        """Return the same rows for a data set that was moved to `source`; None is where it was."""
        before = self.source or self.root
        if source is None or os.path.realpath(source) == os.path.realpath(before):
            return self
        place = os.path.relpath(self.root, before)  # of the files, as seen from the source
        root = os.path.normpath(os.path.join(source, place))
        splits = {
            name: replace(
                split,
                paths=[_absolute(_relative(path, self.root), root) for path in split.paths],
                masks=[_absolute(_relative(mask, self.root), root) for mask in split.masks],
            )
            for name, split in self.splits.items()
        }
        left_out = [replace(item, path=_absolute(_relative(item.path, self.root), root)) for item in self.quarantined]
        return replace(self, root=root, source=source, splits=splits, quarantined=tuple(left_out))

    def fingerprint(self) -> str:
        """Return a hash of the classes and of every row's split, relative path, label or mask and file size, as 64
        digits.
        """
        digest = hashlib.sha256(repr(self.class_names).encode())
        if self.class_table is not None:
            digest.update(repr(self.class_table.to_dict()).encode())
        for name, split in sorted(self.splits.items()):
            for path, names in zip(split.paths, _written(self, split), strict=True):
                size = access.state_of(path).st_size if access.exists(path) else -1
                label = "\1".join(names) if isinstance(names, list) else names
                row = f"{name}\0{_relative(path, self.root)}\0{label}\0{size}\n"
                digest.update(row.encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


def _stored(data: DataSet) -> dict[str, Any]:
    table = {} if data.class_table is None else {"class_table": data.class_table.to_dict()}
    groups = {name: split.groups.tolist() for name, split in data.splits.items() if split.groups is not None}
    return {
        **table,
        **({"groups": groups} if groups else {}),
        "class_names": list(data.class_names),
        "multilabel": data.multilabel,
        "name": data.name,
        "source": data.source or data.root,
        "root": data.root,
        "options": dict(data.options),
        "split_origin": data.split_origin,
        "seed": data.seed,
        "splits": {
            name: [
                [_relative(path, data.root), names]
                for path, names in zip(split.paths, _written(data, split), strict=True)
            ]
            for name, split in data.splits.items()
        },
        "quarantined": [
            {"path": _relative(item.path, data.root), "reason": item.reason, "split": item.split}
            for item in data.quarantined
        ],
        "warnings": list(data.warnings),
        "ignored": dict(data.ignored),
    }


def _written(data: DataSet, split: Split) -> list[Any]:
    """Return the label or the mask path of each row, as splits.json stores it."""
    if data.segmentation:
        return [_relative(mask, data.root) for mask in split.masks]
    return label_names(split.labels, data.class_names)


def _restored(fields: Mapping[str, Any]) -> DataSet:
    try:
        class_names = tuple(str(name) for name in fields["class_names"])
        source = str(fields["source"])
        root = str(fields.get("root", source))
        multilabel = bool(fields.get("multilabel", False))
        table = ClassTable.from_dict(fields["class_table"]) if "class_table" in fields else None
        splits = {
            str(name): Split(
                [_absolute(path, root) for path, _ in rows],
                labels_from_names([names for _, names in rows], class_names, multilabel=multilabel),
            )
            if table is None
            else Split(
                [_absolute(path, root) for path, _ in rows],
                no_labels(len(rows), len(class_names)),
                [_absolute(mask, root) for _, mask in rows],
            )
            for name, rows in fields["splits"].items()
        }
        for name, numbers in fields.get("groups", {}).items():
            splits[name] = replace(splits[name], groups=_numbers(numbers, len(splits[name])))
        if not {"train", "val"} <= set(splits) <= set(SPLITS):
            raise ValueError(f"its splits are {', '.join(splits) or 'none'}")
        quarantined = tuple(
            Quarantined(_absolute(item["path"], root), str(item["reason"]), str(item["split"]))
            for item in fields["quarantined"]
        )
        return DataSet(
            name=str(fields.get("name", Path(root).name)),
            root=root,
            class_names=class_names,
            splits=splits,
            warnings=tuple(map(str, fields["warnings"])),
            ignored={str(reason): int(count) for reason, count in fields["ignored"].items()},
            quarantined=quarantined,
            split_origin=_ORIGINS[fields["split_origin"]],
            seed=int(fields["seed"]),
            source=source,
            options=dict(fields.get("options", {})),
            class_table=table,
        )
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise DataError(
            f"A stored list of splits cannot be read ({type(error).__name__}: {error}).",
            "it has the fields that regraft writes to splits.json, and its labels are among its class names",
            "restore splits.json, or start a new run",
        ) from error


def _numbers(values: Any, num: int) -> npt.NDArray[np.int64]:
    numbers = np.array(values, dtype=np.int64)
    if numbers.shape != (num,):
        raise ValueError(f"it has groups of {numbers.size} images, and {num} images")
    return numbers


def _named(names: Sequence[str], most: int = 10) -> str:
    return ", ".join(names[:most]) + (f", ... ({len(names)})" if len(names) > most else "")


def _relative(path: str, root: str) -> str:
    inside = path.startswith(root.rstrip(os.sep) + os.sep)
    return path[len(root.rstrip(os.sep)) + 1 :].replace(os.sep, "/") if inside else path


def _absolute(path: str, root: str) -> str:
    return path if os.path.isabs(path) else os.path.join(root, *path.split("/"))
