"""Which labelled images are measured: those of the run itself, or others, by the names of their classes."""

from __future__ import annotations

import logging
import os
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from regraft.data.class_table import IGNORED, ClassTable
from regraft.data.dataset import DataSet, Split
from regraft.data.labels import Labels, are_multilabel, labels_from_places, renumbered
from regraft.data.masks.masks import read_mask
from regraft.data.open import open_undivided
from regraft.data.sources.packed import source_name
from regraft.errors import DataError, RegraftError, SettingsError
from regraft.evaluation.seen import Seen, seen_images
from regraft.run.folder import RunFolder

__all__ = [
    "MaskRows",
    "Rows",
    "labels_among",
    "mask_rows",
    "other_mask_rows",
    "other_rows",
    "own_mask_rows",
    "own_rows",
    "own_table",
]


class Rows(NamedTuple):
    """Images to measure.

    Attributes:
        name: What their measures are called.
        paths: The files.
        labels: Their labels among the model's class names.
        selected_by: Whether these images chose the model.
        seen: What the run has seen of them, where they are not its own.
    """

    name: str
    paths: Sequence[str]
    labels: Labels
    selected_by: bool = False
    seen: Seen | None = None


@dataclass(frozen=True)
class MaskRows:
    """Images with masks to measure.

    Attributes:
        name: What their measures are called.
        paths: The images.
        masks: Their masks.
        table: What stands in the masks.
        places: uint8 (256,): the model's class for each class of the table; 255 stays 255.
        selected_by: Whether these images chose the model.
        seen: What the run has seen of them, where they are not its own.
    """

    name: str
    paths: Sequence[str]
    masks: Sequence[str]
    table: ClassTable
    places: npt.NDArray[np.uint8]
    selected_by: bool = False
    seen: Seen | None = None

    def truth(self, mask: str) -> npt.NDArray[np.uint8] | str:
        """Return a mask (H, W) among the model's classes, or the reason why it cannot be used."""
        try:
            return self.places[read_mask(mask, self.table)]
        except RegraftError as error:
            return f"has a mask that cannot be used: {error.what}"


def own_mask_rows(run: RunFolder, class_names: Sequence[str], *, split: str | None = None) -> MaskRows:
    """Return what `own_rows` does, for a run on images with masks."""
    data, name = _own_split(run, split)
    return mask_rows(name, data, data.splits[name], class_names, selected_by=name == "val")


def other_mask_rows(
    source: str | Path, run: RunFolder, class_names: Sequence[str], *, names: str | Path | None = None, **said: Any
) -> MaskRows:
    """Return all images of another source with masks, or those of its test split where it has splits.

    Masks that come without a list of classes hold what those of the run hold.

    Args:
        source: The images with their masks.
        run: The run whose class table that is.
        class_names: The model's.
        names: As for `open_data`.
        said: `masks`, `class_table` and `ignore`, as for `open_data`.

    Raises:
        DataError: It has no masks, or classes that the model does not know.
    """
    data = open_undivided(source, names=names, usual_table=own_table(run), **said)
    split = next(data.splits[name] for name in ("test", "val", "train") if name in data.splits)
    _tell(data)
    rows = mask_rows(_name(Path(source)), data, split, class_names)
    return replace(rows, seen=seen_images(run, rows.paths))


def own_table(run: RunFolder) -> ClassTable | None:
    """Return what stands in the masks of a run; None for a run on labelled images."""
    return DataSet.from_dict(run.read(run.splits)).class_table


def mask_rows(
    name: str, data: DataSet, split: Split, class_names: Sequence[str], *, selected_by: bool = False
) -> MaskRows:
    """Return images with their masks, among the model's class names.

    Raises:
        DataError: They have no masks, or classes that the model does not know.
    """
    if data.class_table is None:
        raise DataError(
            f"The images of {data.source or data.root!r} have no masks, and the model names the class of every pixel.",
            "a mask for each image, as in images/ and masks/",
            "name a folder that holds both, or point to the masks: `--masks FOLDER`, or a pattern of names",
        )
    known = _places(data, class_names)
    places = np.full(256, IGNORED, np.uint8)
    places[: len(known)] = known
    return MaskRows(name, split.paths, split.masks, data.class_table, places, selected_by)


def own_rows(run: RunFolder, class_names: Sequence[str], *, multilabel: bool, split: str | None = None) -> Rows:
    """Return the run's split of this name; else its test split, or its validation split where there is none.

    Raises:
        SettingsError: The run has no such split.
        DataError: The stored list of splits is damaged, or none of its images could be read.
    """
    data, name = _own_split(run, split)
    labels = labels_among(data.splits[name].labels, data, class_names, multilabel=multilabel)
    return Rows(name, data.splits[name].paths, labels, name == "val")


def _own_split(run: RunFolder, split: str | None) -> tuple[DataSet, str]:
    """Return the run's data, and the name of the split to measure."""
    data = DataSet.from_dict(run.read(run.splits))
    name = split or ("test" if data.test is not None else "val")
    if name not in data.splits:
        raise SettingsError(
            f"{str(run.path)!r} has no split {name!r}.",
            f"its splits are: {', '.join(data.splits)}",
            "name one of them, or none for the test split",
        )
    rows = data.splits[name]
    if not rows.paths and any(item.split == name for item in data.quarantined):
        raise DataError(f"The {name} split has no readable image left.", "one", "put the files back")
    return data, name


def other_rows(
    source: str | Path,
    run: RunFolder,
    class_names: Sequence[str],
    *,
    multilabel: bool,
    labels: str | Path | None = None,
    names: str | Path | None = None,
) -> Rows:
    """Return all images of another source, or those of its test split where it has splits.

    Labels that are numbers, with no names beside them, mean what they meant in the run.

    Raises:
        DataError: It is not a labelled source, has masks instead, or classes that the model does not know.
    """
    data = open_undivided(source, labels=labels, names=names)
    if data.segmentation:
        raise DataError(
            f"The images of {data.source or data.root!r} have masks, and the model of {str(run.path)!r} classifies "
            "whole images.",
            "labelled images: a folder for each class, a list or a table",
            "name such images, or evaluate masks with a run that was trained on masks",
        )
    if names is None and set(data.class_names) - set(class_names) and all(map(str.isdecimal, data.class_names)):
        used = (run.settings().get("data") or {}).get("names")
        data = open_undivided(source, labels=labels, names=used) if used and os.path.isfile(used) else data
    split: Split = next(data.splits[name] for name in ("test", "val", "train") if name in data.splits)
    _tell(data)
    among = labels_among(split.labels, data, class_names, multilabel=multilabel)
    return Rows(_name(Path(source)), split.paths, among, seen=seen_images(run, split.paths))


def _tell(data: DataSet) -> None:
    """Note how labels and masks were read, which decides about every figure."""
    for text in data.warnings:
        logging.getLogger("regraft").warning("%s", text)


def _name(source: Path) -> str:
    """Return a name for the metrics on other images, which never replace those on the run's own splits."""
    path = source.expanduser().resolve()
    name = source_name(path) or "root"
    return f"other-{name}" if name.lower() in ("train", "val", "test") else name


def labels_among(labels: Labels, data: DataSet, class_names: Sequence[str], *, multilabel: bool) -> Labels:
    """Return the labels of a data set among the model's class names."""
    places = _places(data, class_names)
    if are_multilabel(labels) and not multilabel:
        raise DataError(
            f"{data.source or data.root!r} has images with several labels, and the model gives each image one.",
            "one label for each image",
            "measure it with a run that was trained with `head.output: multilabel`",
        )
    moved = renumbered(labels, places, len(class_names))
    if multilabel and not are_multilabel(moved):
        return labels_from_places([[label] for label in moved.tolist()], len(class_names), multilabel=True)
    return moved


def _places(data: DataSet, class_names: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return the number among the model's class names of each class of a data set."""
    place = {name: number for number, name in enumerate(class_names)}
    unknown = [name for name in data.class_names if name not in place]
    if unknown:
        raise DataError(
            f"{data.source or data.root!r} has classes that the model does not know: {', '.join(map(repr, unknown))}.",
            f"the model knows: {', '.join(map(repr, class_names))}",
            "Name them as the model does (`--class-table FILE`), or leave them out, as `--ignore "
            f"{shlex.quote(unknown[0])}`."
            if data.segmentation
            else "Rename the folders or labels, or leave these classes out.",
        )
    return np.array([place[name] for name in data.class_names], dtype=np.int64)
