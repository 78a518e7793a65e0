"""A labelled set of image files: class names, splits, and an account of everything that was left out."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from regraft.data.labels import Labels, are_multilabel, class_counts, label_names, labels_from_names
from regraft.data.sources.folder import list_folder
from regraft.data.sources.listing import Listing
from regraft.data.split import divide, require_fractions
from regraft.errors import DataError

__all__ = ["DataSet", "Quarantined", "Split", "open_data"]

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Quarantined:
    """One file that is listed and cannot be used, and why."""

    path: str
    reason: str
    split: str


@dataclass(frozen=True, eq=False)
class Split:
    """The rows of one split: absolute paths, and as many labels.

    Labels are class numbers, int64 of shape (rows,), or, where an image may have any number of classes, uint8 of shape
    (rows, classes) with 1 for each class that it has.
    """

    paths: list[str]
    labels: Labels

    def __len__(self) -> int:
        return len(self.paths)


@dataclass(frozen=True, eq=False)
class DataSet:
    """What `open_data` found.

    Args:
        name: The name of the root folder.
        root: Its absolute path.
        class_names: In plain string order; a label is a position in it.
        splits: `train`, `val` and, where there is one, `test`.
        warnings: Sentences for people.
        ignored: How many files and folders were left out, by reason.
        quarantined: Files that turned out to be unreadable.
        split_origin: `folders`, or `random` where regraft drew at least one split itself.
        seed: The seed of that draw.
    """

    name: str
    root: str
    class_names: tuple[str, ...]
    splits: dict[str, Split]
    warnings: tuple[str, ...] = ()
    ignored: dict[str, int] = field(default_factory=dict)
    quarantined: tuple[Quarantined, ...] = ()
    split_origin: Literal["folders", "random"] = "folders"
    seed: int = 0

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
    def multilabel(self) -> bool:
        """Whether an image may have any number of classes; labels then have the shape (rows, classes)."""
        return any(are_multilabel(split.labels) for split in self.splits.values())

    def counts(self, split: str) -> npt.NDArray[np.int64]:
        """The number of images of each class in one split, in the order of `class_names`."""
        return class_counts(self.splits[split].labels, len(self.class_names))

    def without(self, quarantined: Iterable[Quarantined]) -> DataSet:
        """The same data set with these files moved from their splits to the quarantine."""
        leaving = tuple(quarantined)
        splits = dict(self.splits)
        for name, split in self.splits.items():
            gone = {item.path for item in leaving if item.split == name}
            if gone:
                keep = np.array([path not in gone for path in split.paths], dtype=bool)
                splits[name] = Split([path for path in split.paths if path not in gone], split.labels[keep])
        return replace(self, splits=splits, quarantined=self.quarantined + leaving)

    def to_dict(self) -> dict[str, Any]:
        """The contents of splits.json: paths relative to `source` where they lie below it, labels as names.

        A row is [path, name], or [path, [name, ...]] where an image may have any number of classes.
        """
        return {
            "class_names": list(self.class_names),
            "multilabel": self.multilabel,
            "source": self.root,
            "split_origin": self.split_origin,
            "seed": self.seed,
            "splits": {
                name: [
                    [_relative(path, self.root), names]
                    for path, names in zip(split.paths, label_names(split.labels, self.class_names), strict=True)
                ]
                for name, split in self.splits.items()
            },
            "quarantined": [
                {"path": _relative(item.path, self.root), "reason": item.reason, "split": item.split}
                for item in self.quarantined
            ],
            "warnings": list(self.warnings),
            "ignored": dict(self.ignored),
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> DataSet:
        """The data set that `to_dict` described; files are not looked at.

        Raises:
            DataError: If the fields are not those of a splits.json.
        """
        try:
            class_names = tuple(str(name) for name in fields["class_names"])
            root = str(fields["source"])
            multilabel = bool(fields.get("multilabel", False))
            splits = {
                str(name): Split(
                    [_absolute(path, root) for path, _ in rows],
                    labels_from_names([names for _, names in rows], class_names, multilabel=multilabel),
                )
                for name, rows in fields["splits"].items()
            }
            quarantined = tuple(
                Quarantined(_absolute(item["path"], root), item["reason"], item["split"])
                for item in fields["quarantined"]
            )
            return cls(
                name=Path(root).name,
                root=root,
                class_names=class_names,
                splits=splits,
                warnings=tuple(fields["warnings"]),
                ignored=dict(fields["ignored"]),
                quarantined=quarantined,
                split_origin=fields["split_origin"],
                seed=int(fields["seed"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DataError(
                f"A stored list of splits cannot be read ({type(error).__name__}: {error}).",
                "It has the fields that regraft writes to splits.json, and its labels are among its class names.",
                "Restore splits.json, or start a new run.",
            ) from error

    def settings(self) -> dict[str, Any]:
        """The data set's part of a recipe, as plain data."""
        return {"source": self.root}

    def fingerprint(self) -> str:
        """A hash of the class names and of every row's split, relative path, label and file size, as 64 hex digits."""
        digest = hashlib.sha256(repr(self.class_names).encode())
        for name, split in sorted(self.splits.items()):
            for path, names in zip(split.paths, label_names(split.labels, self.class_names), strict=True):
                size = os.stat(path).st_size if os.path.exists(path) else -1
                label = "\1".join(names) if isinstance(names, list) else names
                row = f"{name}\0{_relative(path, self.root)}\0{label}\0{size}\n"
                digest.update(row.encode("utf-8", "surrogateescape"))
        return digest.hexdigest()


def open_data(
    source: str | os.PathLike[str], *, seed: int = 0, fractions: tuple[float, float, float] = (0.70, 0.15, 0.15)
) -> DataSet:
    """The labelled files of a folder, `source/{train,val,test}/class/*` or `source/class/*`, divided into splits.

    Splits that are folders are kept as they are. What is missing is drawn, stratified, as a function of the seed:
    all three splits from `source/class/*`, and the validation split where there is only `train`.
    No file is decoded yet: `regraft.data.cache.decode_all` does that and quarantines what cannot be read.

    Args:
        source: The root folder.
        seed: Which of the possible splits to draw.
        fractions: Shares of train, val and test; a split with the share 0 is left out.

    Raises:
        DataError: If the folder is no usable data set; all mistakes at once.
        SettingsError: If the fractions are not shares that add up to 1.
    """
    require_fractions(fractions)
    root = Path(os.path.abspath(Path(source).expanduser()))
    return _divided(list_folder(root), seed, fractions)


def _divided(listing: Listing, seed: int, fractions: tuple[float, float, float]) -> DataSet:
    given = {
        name: Split(paths, np.array(labels, dtype=np.int64)) for name, (paths, labels) in listing.rows.items() if name
    }
    warnings = list(listing.warnings)
    drawn = "" in listing.rows or "val" not in given
    if "" in listing.rows:
        paths, numbers = listing.rows[""]
        labels = np.array(numbers, dtype=np.int64)
        parts = divide(labels, fractions, seed=seed)
        given = {
            name: Split([paths[row] for row in part], labels[part])
            for name, part, share in zip(SPLITS, parts, fractions, strict=True)
            if len(part) or (share and name != "test")
        }
        warnings += _single_warnings(listing.class_names, labels)
    elif drawn:
        share = fractions[1] / (fractions[0] + fractions[1])
        given |= _val_from_train(given["train"], share, seed)
        warnings.append(
            f"There is no validation folder: {len(given['val'])} of {len(given['train']) + len(given['val'])} training "
            f"images were drawn for validation (seed {seed})."
        )
    return DataSet(
        name=Path(listing.root).name,
        root=listing.root,
        class_names=listing.class_names,
        splits={name: given[name] for name in SPLITS if name in given},
        warnings=tuple(warnings),
        ignored=dict(listing.ignored),
        split_origin="random" if drawn else "folders",
        seed=seed,
    )


def _val_from_train(train: Split, share: float, seed: int) -> dict[str, Split]:
    parts = divide(train.labels, (1 - share, share), seed=seed)
    return {
        name: Split([train.paths[row] for row in part], train.labels[part])
        for name, part in zip(("train", "val"), parts, strict=True)
    }


def _single_warnings(class_names: tuple[str, ...], labels: Labels) -> list[str]:
    counts = class_counts(labels, len(class_names))
    single = [repr(name) for name, count in zip(class_names, counts, strict=True) if count == 1]
    if not single:
        return []
    return [f"Classes with one image, which goes to train and is never validated: {', '.join(single)}."]


def _relative(path: str, root: str) -> str:
    inside = path.startswith(root.rstrip(os.sep) + os.sep)
    return path[len(root.rstrip(os.sep)) + 1 :].replace(os.sep, "/") if inside else path


def _absolute(path: str, root: str) -> str:
    return path if os.path.isabs(path) else os.path.join(root, *path.split("/"))
