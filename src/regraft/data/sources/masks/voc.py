"""PASCAL VOC: `JPEGImages`, `SegmentationClass` and the lists in `ImageSets/Segmentation`."""

from __future__ import annotations

import os
from pathlib import Path

from regraft.data.files import access
from regraft.data.sources.bad_rows import BadRows
from regraft.data.sources.listing import SPLIT_WORDS
from regraft.data.sources.masks.mask_folders import FolderPair
from regraft.data.sources.text import TextLines
from regraft.errors import DataError

__all__ = ["find_voc"]


def find_voc(root: Path) -> list[FolderPair]:
    """Return the images and masks of a VOC folder, or of the only one below `root`, by its lists; none where there is
    none.

    Raises:
        DataError: Lists that cannot be read, or several VOC folders.
    """
    folders = [folder for folder in (root, *_below(root, 1), *_below(root, 2)) if _is_voc(folder)]
    if not folders:
        return []
    if len(folders) > 1 and folders[0] != root:
        raise DataError(
            f"{os.fspath(root)!r} holds several VOC data sets: {', '.join(path.name for path in folders)}.",
            "one of them",
            f"its folder, for example {os.fspath(folders[-1])!r}",
        )
    folder = folders[0]
    images, masks = folder / "JPEGImages", folder / "SegmentationClass"
    lists = _lists(folder)
    whole = lists.pop("trainval", None)
    if "train" not in lists and whole is not None:
        lists = {"": whole}
    bad = BadRows()
    pairs = [FolderPair(split, images, masks, only=_read(path, bad)) for split, path in lists.items()]
    if len(bad):
        raise bad.error(folder, os.fspath(folder))
    return pairs or [
        FolderPair("", images, masks, only=tuple(sorted(Path(name).stem for name in access.names_in(masks))))
    ]


def _is_voc(folder: Path) -> bool:
    return access.is_folder(folder / "JPEGImages") and access.is_folder(folder / "SegmentationClass")


def _below(root: Path, depth: int) -> list[Path]:
    try:
        with access.entries(root) as found:
            folders = [Path(entry.path) for entry in found if entry.is_dir() and "VOC" in entry.name.upper()]
    except OSError:
        return []
    folders = sorted(folders)
    return folders if depth == 1 else [below for folder in folders for below in _below(folder, depth - 1)]


def _lists(folder: Path) -> dict[str, Path]:
    """Return the lists that name a split, in the order train, val, test, trainval."""
    places = folder / "ImageSets" / "Segmentation"
    found = {path.stem.lower(): path for path in access.files_like(places, "*.txt")} if access.is_folder(places) else {}
    named = {SPLIT_WORDS.get(stem, stem): path for stem, path in found.items()}
    return {split: named[split] for split in ("train", "val", "test", "trainval") if split in named}


def _read(path: Path, bad: BadRows) -> tuple[str, ...]:
    lines = TextLines(path, bad)
    names: dict[str, int] = {}
    for line in lines:
        name = line.strip()
        if name in names:
            bad.add(path, lines.number, "names that stand twice", f"{name!r} stands in row {names[name]} already")
        elif name:
            names[name] = lines.number
    return tuple(names)
