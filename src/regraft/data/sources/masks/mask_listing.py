"""Data sets for segmentation: images, their masks, and the classes that stand in them."""

from __future__ import annotations

import fnmatch
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from regraft.data.class_table import ClassTable
from regraft.data.sources.listing import Listing, quoted, twin_warnings
from regraft.data.sources.masks.class_list import (
    Entry,
    find_class_list,
    inline_classes,
    listed_classes,
    read_class_list,
)
from regraft.data.sources.masks.coco import CocoSplit, by_name, find_coco, read_coco
from regraft.data.sources.masks.known_classes import CAMVID, VOC, are_camvid
from regraft.data.sources.masks.mask_classes import OF_TRAINING, choose_table
from regraft.data.sources.masks.mask_folders import (
    FolderPair,
    find_pairs,
    given_pairs,
    has_folders,
    left_out,
    unused_beside,
)
from regraft.data.sources.masks.pairing import Pairing, pair_up
from regraft.data.sources.masks.voc import find_voc
from regraft.data.sources.walk import Walk
from regraft.errors import DataError
from regraft.wording import quantity

__all__ = ["Classes", "list_masks"]

_FEW = 5


@dataclass(frozen=True)
class Classes:
    """What the user says about the classes.

    Attributes:
        table: A file with the list of classes, or its rows.
        ignore: Values, colours or names that count for nothing.
        usual: What stands in masks that come without a list of classes.
    """

    table: Path | Sequence[Any] | None = None
    ignore: Sequence[Any] = ()
    usual: ClassTable | None = None


def list_masks(root: Path, masks: str | None, classes: Classes) -> Listing | None:
    """Return the images and masks below a folder; None for one that does not look like a data set for segmentation.

    Args:
        root: The folder.
        masks: Where the masks lie, if it is said: a folder, or a pattern of names.
        classes: What is said about the classes.

    Raises:
        DataError: With every mistake at once.
    """
    if masks is None and not has_folders(root):
        return None
    annotated = find_coco(root, masks)
    if annotated:
        return _annotated(root, annotated, classes)
    known: tuple[Entry, ...] = ()
    if masks is not None:
        pairs = given_pairs(root, masks)
    elif pairs := find_voc(root):
        known = VOC
    else:
        pairs = find_pairs(root)
    if not pairs:
        return None
    found = _Found()
    pairings = {pair.split: found.add(pair) for pair in pairs}
    found.warnings += [f"{os.path.relpath(path, root)!r} has no masks and was left out." for path in left_out(pairs)]
    if not known:  # what VOC has beside is known, and is no mistake
        found.warnings += [
            f"{os.path.relpath(path, root)!r} next to the images and masks was not used: its images belong to neither."
            for path in unused_beside(root, pairs)
        ]
    rows = {split: (pairing.images, pairing.masks) for split, pairing in pairings.items()}
    entries, origin = _entries(root, [pair.masks for pair in pairs], classes)
    if not entries and not known and are_camvid(path for images, _ in rows.values() for path in images):
        known = CAMVID
    return _listed(root, rows, found, (entries, origin), classes, known)


def _annotated(root: Path, parts: Sequence[CocoSplit], classes: Classes) -> Listing:
    """Return the images of COCO, with masks that are drawn from their annotations."""
    found = _Found()
    rows: dict[str, tuple[list[str], list[str]]] = {}
    categories: dict[str, list[Entry]] = {}
    for part in parts:
        images, masks, categories[part.split], lost = read_coco(part)
        rows[part.split] = (images, masks)
        found.lose(part, lost, len(images))
    first, *others = categories.items()
    for split, entries in others:
        if entries != first[1]:
            found.mistakes.append(f"The categories of {split} are not those of {first[0]}.")
    entries, origin = first[1], "the annotations"
    if classes.table is not None:
        given, origin = _entries(root, (), classes)
        entries = by_name(given, entries)
    return _listed(root, rows, found, (entries, origin), classes, ())


def _listed(
    root: Path,
    rows: Mapping[str, tuple[list[str], list[str]]],
    found: _Found,
    named: tuple[Sequence[Entry], str],
    classes: Classes,
    known: Sequence[Entry],
) -> Listing:
    found.require_most(root)
    every = [mask for _, masks in rows.values() for mask in masks]
    chosen = choose_table(root, every, *named, classes.ignore, known)
    empty: list[int] = []
    return Listing(
        os.fspath(root),
        chosen.table.names,
        {split: (images, empty) for split, (images, _) in rows.items()},
        (*found.warnings, *chosen.warnings, *twin_warnings(chosen.table.names)),
        dict(sorted(found.ignored.items())),
        masks={split: masks for split, (_, masks) in rows.items()},
        class_table=chosen.table,
    )


def _entries(root: Path, folders: Sequence[Path], classes: Classes) -> tuple[list[Entry], str]:
    """Return the list of classes, and where it comes from."""
    if isinstance(classes.table, Path):
        return read_class_list(classes.table), classes.table.name
    if classes.table is not None:
        return inline_classes(classes.table), "data.class_table"
    path = find_class_list([root, *(folder.parent for folder in folders), *folders])
    if path is not None:
        return read_class_list(path), path.name
    return ([], "") if classes.usual is None else (listed_classes(classes.usual), OF_TRAINING)


@dataclass
class _Found:
    """What the folders hold, and what was left out."""

    ignored: dict[str, int] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    mistakes: list[str] = field(default_factory=list)

    def add(self, pair: FolderPair) -> Pairing:
        """Return the images of one split with their masks."""
        images, masks = self._files(pair)
        pairing = pair_up(images, masks, os.fspath(pair.images), os.fspath(pair.masks))
        where = f" of {pair.split}" if pair.split else ""
        if not pairing.images:
            self.mistakes.append(self._nothing(pair, images, masks))
        elif 2 * len(pairing.missing) > len(images):
            self.mistakes.append(
                f"{len(pairing.missing)} of {len(images)} images{where} have no mask, for example "
                f"{_names(pairing.missing)} in {os.fspath(pair.masks)!r}."
            )
        elif pairing.missing:
            self._leave("image without a mask", len(pairing.missing))
            self.warnings.append(
                quantity(
                    len(pairing.missing), f"image{where} has no mask and was", f"images{where} have no mask and were"
                )
                + f" left out: {_names(pairing.missing)}."
            )
        if pairing.extra:
            self._leave("mask without an image", len(pairing.extra))
            self.warnings.append(
                quantity(len(pairing.extra), f"mask{where} belongs to no image", f"masks{where} belong to no image")
                + f" and {'was' if len(pairing.extra) == 1 else 'were'} left out: {_names(pairing.extra)}."
            )
        return pairing

    def lose(self, part: CocoSplit, lost: Sequence[str], num: int) -> None:
        """Note the images that annotations name and that are missing."""
        if len(lost) > num:
            self.mistakes.append(
                f"{len(lost)} images of {part.file.name} are not there, for example {quoted(lost[:1])}; looked for in "
                f"{quoted(map(os.fspath, part.folders))}."
            )
        elif lost:
            self._leave("annotated image that is not there", len(lost))
            self.warnings.append(
                quantity(len(lost), f"image of {part.file.name} is", f"images of {part.file.name} are")
                + f" not there: {quoted(lost, _FEW)}."
            )

    def require_most(self, root: Path) -> None:
        """Raise where whole splits have no masks."""
        if self.mistakes:
            raise DataError(
                f"The images and masks of {os.fspath(root)!r} do not fit together.",
                "each image has a mask of the same name, or with the same ending for all, as in x.jpg and x_mask.png",
                "correct the names, or point to the masks: `--masks FOLDER`, or a pattern such as '*_mask.png'",
                details=self.mistakes,
            )

    def _files(self, pair: FolderPair) -> tuple[list[str], list[str]]:
        images = self._pictures(pair.images)
        if pair.pattern:
            masks = [path for path in images if fnmatch.fnmatch(os.path.basename(path), pair.pattern)]
            return sorted(set(images) - set(masks)), masks
        masks = self._pictures(pair.masks) if pair.masks != pair.images else images
        inside = os.fspath(pair.masks) + os.sep
        images = [path for path in images if not path.startswith(inside)]
        if pair.only is not None:
            wanted = set(pair.only)
            images = [path for path in images if Path(path).stem in wanted]
            lost = sorted(wanted - {Path(path).stem for path in images})
            if lost:
                self.mistakes.append(f"There is no image for {len(lost)} names of {pair.split}: {quoted(lost, _FEW)}.")
            masks = [path for path in masks if Path(path).stem in wanted]
        return images, masks

    def _pictures(self, folder: Path) -> list[str]:
        walk = Walk()
        walk.enter(folder)
        paths = list(walk.pictures(folder))
        for reason, count in walk.ignored.items():
            self._leave(reason, count)
        self.mistakes += walk.mistakes
        return paths

    def _leave(self, reason: str, count: int) -> None:
        self.ignored[reason] = self.ignored.get(reason, 0) + count

    def _nothing(self, pair: FolderPair, images: Sequence[str], masks: Sequence[str]) -> str:
        where = f" of {pair.split}" if pair.split else ""
        if not images:
            return f"There is no image{where} in {os.fspath(pair.images)!r}."
        if not masks:
            kind = f" like {pair.pattern!r}" if pair.pattern else ""
            return f"There is no mask{where}{kind} in {os.fspath(pair.masks)!r}."
        return f"No image{where} has a mask: images are called {_names(images[:2])}, masks {_names(masks[:2])}."


def _names(paths: Sequence[str]) -> str:
    return quoted((os.path.basename(path) for path in paths), _FEW)
