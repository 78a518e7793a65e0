"""Which labelled images are measured: those of the run itself, or others, by the names of their classes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from regraft.data.dataset import DataSet, Split
from regraft.data.labels import Labels, are_multilabel, labels_from_places, renumbered
from regraft.data.open import open_undivided
from regraft.errors import DataError, SettingsError
from regraft.run.folder import RunFolder

__all__ = ["Rows", "other_rows", "own_rows"]


class Rows(NamedTuple):
    """Images to measure.

    Attributes:
        name: What their measures are called.
        paths: The files.
        labels: Their labels among the model's class names.
        selected_by: Whether these images chose the model.
    """

    name: str
    paths: Sequence[str]
    labels: Labels
    selected_by: bool = False


def own_rows(run: RunFolder, class_names: Sequence[str], *, multilabel: bool, split: str | None = None) -> Rows:
    """The run's split of this name; else its test split, or its validation split where there is none.

    Raises:
        SettingsError: The run has no such split.
        DataError: The stored list of splits is damaged, or none of its images could be read.
    """
    data = DataSet.from_dict(run.read(run.splits))
    name = split or ("test" if data.test is not None else "val")
    if name not in data.splits:
        raise SettingsError(
            f"{str(run.path)!r} has no split {name!r}.",
            f"Its splits are: {', '.join(data.splits)}.",
            "Name one of them, or none for the test split.",
        )
    rows = data.splits[name]
    if not rows.paths and any(item.split == name for item in data.quarantined):
        raise DataError(f"The {name} split has no readable image left.", "Expected one.", "Put the files back.")
    labels = _among(rows.labels, data, class_names, multilabel=multilabel)
    return Rows(name, rows.paths, labels, name == "val")


def other_rows(
    source: str | Path,
    run: RunFolder,
    class_names: Sequence[str],
    *,
    multilabel: bool,
    labels: str | Path | None = None,
    names: str | Path | None = None,
) -> Rows:
    """All images of another source, or those of its test split where it has splits.

    Labels that are numbers, with no names beside them, mean what they meant in the run.

    Raises:
        DataError: It is no labelled source, or has classes that the model does not know.
    """
    data = open_undivided(source, labels=labels, names=names)
    if names is None and set(data.class_names) - set(class_names) and all(map(str.isdecimal, data.class_names)):
        used = (run.settings().get("data") or {}).get("names")
        data = open_undivided(source, labels=labels, names=used) if used and os.path.isfile(used) else data
    split: Split = next(data.splits[name] for name in ("test", "val", "train") if name in data.splits)
    return Rows(_name(Path(source)), split.paths, _among(split.labels, data, class_names, multilabel=multilabel))


def _name(source: Path) -> str:
    """A name for the measures on other photos, which never replace those on the run's own splits."""
    path = source.expanduser().resolve()
    name = (path.stem if path.is_file() else path.name) or "root"
    return f"other-{name}" if name.lower() in ("train", "val", "test") else name


def _among(labels: Labels, data: DataSet, class_names: Sequence[str], *, multilabel: bool) -> Labels:
    """The labels of a data set among the model's class names."""
    place = {name: number for number, name in enumerate(class_names)}
    unknown = [name for name in data.class_names if name not in place]
    if unknown:
        raise DataError(
            f"{data.source or data.root!r} has classes that the model does not know: {', '.join(map(repr, unknown))}.",
            f"The model knows: {', '.join(map(repr, class_names))}.",
            "Rename the folders or labels, or leave these classes out.",
        )
    if are_multilabel(labels) and not multilabel:
        raise DataError(
            f"{data.source or data.root!r} has images with several labels, and the model gives each image one.",
            "Expected one label for each image.",
            "Measure it with a run that was trained with `head.output: multilabel`.",
        )
    places = np.array([place[name] for name in data.class_names], dtype=np.int64)
    moved = renumbered(labels, places, len(class_names))
    if multilabel and not are_multilabel(moved):
        return labels_from_places([[label] for label in moved.tolist()], len(class_names), multilabel=True)
    return moved
