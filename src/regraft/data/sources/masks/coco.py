"""COCO: images, and JSON files of annotations with polygons or run lengths, as masks."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from regraft.data.decode.image_file import read_file
from regraft.data.files import access
from regraft.data.masks.coco import REST, reference
from regraft.data.sources.listing import SPLIT_WORDS, quoted
from regraft.data.sources.masks.class_list import Entry
from regraft.errors import DataError

__all__ = ["CocoSplit", "by_name", "find_coco", "read_coco"]

_NAME = re.compile(r"(?P<kind>[a-z_]*?)_?(?P<split>train|valid|validation|val|test)(?P<year>\d*)", re.IGNORECASE)
_IN_FOLDER = "_annotations.coco.json"
_HEAD = 1 << 16
_FEW = 5


@dataclass(frozen=True)
class CocoSplit:
    """One file of annotations.

    Attributes:
        split: `train`, `val` or `test`; "" where it has yet to be divided.
        file: The JSON file.
        folders: Where its images may lie.
    """

    split: str
    file: Path
    folders: tuple[Path, ...]


def find_coco(root: Path, masks: str | None) -> list[CocoSplit]:
    """Return the annotations below a folder, or those that `masks` names (a JSON file, or a pattern of such); else
    none.

    Raises:
        DataError: Several files for one split, or none where one was named.
    """
    if masks is not None:
        if not masks.lower().endswith(".json"):
            return []
        files = access.files_like(root, masks) if not os.path.isabs(masks) else [Path(masks)]
        files = [file for file in files or [Path(masks).absolute()] if access.is_file(file)]
        if not files:
            raise DataError(
                f"There is no file {masks!r} in {os.fspath(root)!r}.",
                "a JSON file of COCO annotations, or a pattern such as 'annotations/instances_*.json'",
                "check the spelling of data.masks",
            )
        return [_split(root, files[0], "")] if len(files) == 1 else _each(root, files)
    own = [child for child in (root, *_children(root)) if access.has_file(child, _IN_FOLDER)]
    if own:
        return [
            CocoSplit(SPLIT_WORDS.get(child.name.lower(), "") if child != root else "", child / _IN_FOLDER, (child,))
            for child in own
        ]
    files = [file for file in access.files_like(root, "annotations/*.json") if _has_masks(file)]
    for kind in ("instances", "stuff", ""):
        chosen = [file for file in files if file.name.lower().startswith(kind) and _NAME.fullmatch(file.stem)]
        if chosen:
            return _each(root, chosen)
    return [_split(root, files[0], "")] if len(files) == 1 else []


def read_coco(part: CocoSplit) -> tuple[list[str], list[str], list[Entry], list[str]]:
    """Return the images of one file of annotations, their masks, the categories, and the names of images that are not
    there.

    Raises:
        DataError: The file holds no annotations of COCO.
    """
    data = read_file(part.file)
    try:
        values: Mapping[str, Any] = json.loads(data) if isinstance(data, bytes) else {}
        images, masks, lost = [], [], []
        for image in sorted(values["images"], key=lambda image: str(image["file_name"])):
            path = _place(part.folders, str(image["file_name"]))
            if path is None:
                lost.append(str(image["file_name"]))
            else:
                images.append(path)
                masks.append(reference(os.fspath(part.file), int(image["id"])))
        categories = [Entry(str(row["name"]), int(row["id"])) for row in values["categories"]]
        if not categories or not isinstance(values["annotations"], list):
            raise ValueError("it has no categories or no annotations")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        reason = data if isinstance(data, str) else f"{type(error).__name__}: {' '.join(str(error).split())[:120]}"
        raise DataError(
            f"{os.fspath(part.file)!r} cannot be read as annotations of COCO ({reason}).",
            "it is a JSON file with images, annotations and categories",
            "name another one with `--masks FILE.json`, or move it away",
        ) from error
    stuff = "stuff" in part.file.name.lower()
    rest = Entry("unlabelled", REST, ignored=True) if stuff else Entry("background", REST)
    return images, masks, [rest, *sorted(categories, key=lambda entry: entry.value or 0)], lost


def by_name(entries: Sequence[Entry], categories: Sequence[Entry]) -> list[Entry]:
    """Return a list of classes with the numbers of the categories of the same names; what it leaves out is
    background.
    """
    number = {entry.name: entry.value for entry in categories}
    given = [entry if entry.value is not None else replace(entry, value=number.get(entry.name)) for entry in entries]
    unknown = [entry.name for entry in given if entry.value is None]
    if unknown:
        raise DataError(
            f"The annotations have no categories {quoted(unknown, _FEW)}.",
            f"their categories are: {quoted(number)}",
            "correct the names in data.class_table, or give the number of each category as value",
        )
    used = {entry.value for entry in given}
    rest = next((entry for entry in given if entry.name == "background"), None)
    if rest is None:
        return given
    return [*given, *(replace(rest, value=entry.value) for entry in categories if entry.value not in used)]


def _each(root: Path, files: Sequence[Path]) -> list[CocoSplit]:
    """Return one file for each split, by their names."""
    named: dict[str, list[Path]] = {}
    for file in files:
        match = _NAME.fullmatch(file.stem)
        if match is not None:
            named.setdefault(SPLIT_WORDS[match["split"].lower()], []).append(file)
    several = [path.name for paths in named.values() if len(paths) > 1 for path in paths]
    if several or not named:
        raise DataError(
            f"{os.fspath(root)!r} has several files of annotations: {quoted(several or [f.name for f in files])}.",
            "one for each split",
            "name them: `--masks 'annotations/instances_*2017.json'`, or a single file",
        )
    return [_split(root, named[split][0], split) for split in ("train", "val", "test") if split in named]


def _split(root: Path, file: Path, split: str) -> CocoSplit:
    match = _NAME.fullmatch(file.stem)
    names = [f"{match['split']}{match['year']}", match["split"]] if match is not None else []
    inside = [folder / name for name in names for folder in (root, root / "images")]
    return CocoSplit(split, file, tuple(path for path in (*inside, root / "images", root) if access.is_folder(path)))


def _children(root: Path) -> Iterator[Path]:
    try:
        with access.entries(root) as entries:
            found = sorted(Path(entry.path) for entry in entries if entry.is_dir())
    except OSError:
        return iter(())
    return (path for path in found if path.name.lower() in SPLIT_WORDS)


def _has_masks(file: Path) -> bool:
    """Return whether a JSON file mentions masks; captions and keypoints without them are something else."""
    try:
        with access.open_bytes(file) as stream:
            head = stream.read(_HEAD)
            if b'"segmentation"' in head:
                return True
            size = stream.seek(0, os.SEEK_END)
            for place in (size // 2, max(0, size - _HEAD)):  # annotations may stand behind the list of images
                stream.seek(place)
                if b'"segmentation"' in stream.read(_HEAD):
                    return True
    except OSError:
        return False
    return False


def _place(folders: Sequence[Path], name: str) -> str | None:
    """Return the path of an image; None where no folder has it, or its name leads out of the folders."""
    if os.path.isabs(name) or ".." in name.replace("\\", "/").split("/"):
        return None
    paths = (os.path.join(folder, name) for folder in folders)
    return next((path for path in paths if access.is_file(path)), None)
