"""Where images and masks lie: which folders belong together, for each split."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from pathlib import Path

from regraft.data.files import access
from regraft.data.sources.listing import SPLIT_WORDS, quoted
from regraft.data.sources.walk import is_hidden, is_picture_name
from regraft.errors import DataError

__all__ = [
    "FolderPair",
    "find_pairs",
    "given_pairs",
    "has_folders",
    "has_pictures",
    "left_out",
    "mask_folders",
    "unused_beside",
]

_IMAGES = (
    "images",
    "image",
    "imgs",
    "img",
    "photos",
    "pictures",
    "jpegimages",
    "leftimg8bit",
    "rgb",
    "inputs",
    "input",
)
_MASKS = (
    *(
        "masks",
        "mask",
        "labels",
        "label",
        "annotations",
        "annotation",
        "annots",
        "annot",
        "groundtruth",
        "gt",
        "gtfine",
    ),
    *("segmentation", "segmentations", "segmentationclass", "seg", "labelids", "trimaps", "targets", "target"),
)


@dataclass(frozen=True)
class FolderPair:
    """A folder of images and the folder of their masks.

    Attributes:
        split: `train`, `val` or `test`; "" where it has yet to be divided.
        images: The images lie below it.
        masks: The masks lie below it; it may lie below `images`, or be the same folder.
        pattern: What the names of masks look like where both lie in one folder, such as `*_mask.png`.
        only: The names, without suffix, of the images that are meant; None means all.
    """

    split: str
    images: Path
    masks: Path
    pattern: str = ""
    only: tuple[str, ...] | None = None


def find_pairs(root: Path) -> list[FolderPair]:
    """Return the folders of images and masks below a folder that looks like a data set for segmentation; else none.

    These are `images/` and `masks/` (each may hold folders for the splits), `train/images/` and `train/masks/`, or
    `train/` and `trainannot/`, under any of the usual names.
    """
    folders = _folders(root)
    pair = _named_pair(folders)
    if pair is not None:
        return _by_split(*pair)
    splits = _split_folders(folders)
    inside = [(split, _named_pair(_folders(folder))) for split, folder in splits]
    pairs = [FolderPair(split, *pair) for split, pair in inside if pair is not None]
    return pairs or _beside(folders)


def given_pairs(root: Path, masks: str) -> list[FolderPair]:
    """Return the folders where the masks are named: a folder, a folder in each split, or a pattern such as
    `*_mask.png`.

    Raises:
        DataError: There is no such folder.
    """
    splits = _split_folders(_folders(root))
    if any(sign in masks for sign in "*?["):
        if splits and any(has_pictures(folder) for _, folder in splits):
            return [FolderPair(split, folder, folder, masks) for split, folder in splits]
        return [FolderPair("", root, root, masks)]
    folder = next(
        (path for path in (root / masks, Path(masks).expanduser().absolute()) if access.is_folder(path)), None
    )
    if folder is None:
        inside = [(split, path, path / masks) for split, path in splits if access.is_folder(path / masks)]
        if inside:
            return [FolderPair(split, _images_beside(path, own), own) for split, path, own in inside]
        raise DataError(
            f"There is no folder of masks {masks!r} in {os.fspath(root)!r}, and none of that path.",
            "a folder with a mask for each image, a JSON file of COCO, or a pattern such as '*_mask.png'",
            f"check the spelling of data.masks; the folders there are: {quoted(path.name for path in _folders(root))}",
        )
    return _by_split(_images_beside(root, folder), folder)


def has_folders(root: Path) -> bool:
    """Return whether a folder holds others, or annotations of COCO: a flat one may be very large, and is left at
    once.
    """
    return access.has_file(root, "_annotations.coco.json") or bool(_folders(root))


def left_out(pairs: Sequence[FolderPair]) -> list[Path]:
    """Return folders of splits that hold images and lie beside those that were found, but have no masks."""
    used = {pair.images for pair in pairs} | {pair.images.parent for pair in pairs} | {pair.masks for pair in pairs}
    places = {path.parent for path in used if path.name.lower() in SPLIT_WORDS}
    beside = [folder for place in sorted(places) for _, folder in _split_folders(_folders(place))]
    return [folder for folder in beside if folder not in used and has_pictures(folder)]


def unused_beside(root: Path, pairs: Sequence[FolderPair]) -> list[Path]:
    """Return folders with images beside those of images and masks that belong to none of them, such as that of a
    class.
    """
    used = {path for pair in pairs for path in (pair.images, pair.masks)}
    inside = {place for path in used for place in (path, *path.parents)}
    places = {root, *(path.parent for path in used if path != root and path.parent.is_relative_to(root))}
    beside = [folder for place in sorted(places) if place not in used for folder in _folders(place)]
    return [
        folder
        for folder in beside
        if folder not in inside and folder.name.lower() not in SPLIT_WORDS and has_pictures(folder)
    ]


def mask_folders(folders: Iterable[str], stems: Mapping[str, AbstractSet[str]]) -> set[str]:
    """Return those of the folders that hold masks of images beside them, judged by names alone.

    A folder that is called like masks counts beside one that is called like images (`images/` and `masks/`, `train/`
    and `trainannot/`), and below or beside images of which it repeats the names.

    Args:
        folders: Folders that hold images, at any depth.
        stems: The names without suffix of the images in each.
    """
    known = {place for folder in folders for place in (folder, os.path.dirname(folder))}
    beside: dict[str, list[str]] = defaultdict(list)
    for folder in sorted(known):
        beside[os.path.dirname(folder)].append(folder)
    found = set()
    for parent, group in beside.items():
        paths = [Path(folder) for folder in group]
        has_images = any(path.name.lower() in _IMAGES for path in paths)
        by_split = {os.fspath(pair.masks) for pair in _beside(paths, all_hold_pictures=True)}
        for path, folder in zip(paths, group, strict=True):
            own = stems.get(folder, frozenset())
            named = path.name.lower() in (*_MASKS, "segmentationobject")
            repeats = bool(own) and own <= stems.get(parent, frozenset())
            if (named and (has_images or repeats)) or folder in by_split:
                found.add(folder)
    return found


def has_pictures(folder: Path) -> bool:
    """Return whether any image lies below a folder, judged by its name."""
    return any(is_picture_name(name) and not is_hidden(name) for _, files in access.walk(folder) for name in files)


def _folders(folder: Path) -> list[Path]:
    try:
        with access.entries(folder) as entries:
            return sorted(Path(entry.path) for entry in entries if entry.is_dir() and not is_hidden(entry.name))
    except OSError:
        return []


def _split_folders(folders: Sequence[Path]) -> list[tuple[str, Path]]:
    named = [(SPLIT_WORDS[path.name.lower()], path) for path in folders if path.name.lower() in SPLIT_WORDS]
    return sorted(named, key=lambda pair: ("train", "val", "test").index(pair[0]))


def _named_pair(folders: Sequence[Path]) -> tuple[Path, Path] | None:
    """Return one folder that is called like images and one that is called like masks, both with images."""
    images = [path for path in folders if path.name.lower() in _IMAGES and has_pictures(path)]
    masks = [path for path in folders if path.name.lower() in _MASKS and has_pictures(path)]
    if not images or not masks:
        return None
    order = {name: place for place, name in enumerate((*_IMAGES, *_MASKS))}
    return (min(found, key=lambda path: order[path.name.lower()]) for found in (images, masks))  # type: ignore


def _by_split(images: Path, masks: Path) -> list[FolderPair]:
    """Return one pair for each split where both folders hold folders for the splits; else a single one."""
    of_images, of_masks = dict(_split_folders(_folders(images))), dict(_split_folders(_folders(masks)))
    of_images.pop(masks.name, None)
    if of_images and set(of_images) == set(of_masks):
        return [FolderPair(split, folder, of_masks[split]) for split, folder in of_images.items()]
    if of_images and set(of_images) & set(of_masks) and "train" in of_masks:
        return [FolderPair(split, folder, of_masks[split]) for split, folder in of_images.items() if split in of_masks]
    return [FolderPair("", images, masks)]


def _images_beside(root: Path, masks: Path) -> Path:
    """Return the folder of the images beside a folder of masks: one that is called like images, else the root."""
    own = [path for path in _folders(root) if path.name.lower() in _IMAGES and path != masks and has_pictures(path)]
    return own[0] if own else root


def _beside(folders: Sequence[Path], *, all_hold_pictures: bool = False) -> list[FolderPair]:
    """Return `train/` and `trainannot/`, `train_images/` and `train_masks/`, and so for each split."""
    pairs = []
    for split in ("train", "val", "test"):
        words = [word for word, name in SPLIT_WORDS.items() if name == split]
        images, masks = (
            [path for path in folders if _says(path.name, words, kinds)] for kinds in (("", *_IMAGES), _MASKS)
        )
        masks = [path for path in masks if all_hold_pictures or has_pictures(path)]
        if images and masks:
            pairs.append(FolderPair(split, images[0], masks[0]))
    return pairs


def _says(name: str, words: Sequence[str], kinds: Sequence[str]) -> bool:
    plain = name.lower().replace("_", "").replace("-", "")
    return any(plain in (word + kind, kind + word) for word in words for kind in kinds)
