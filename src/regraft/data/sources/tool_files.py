"""Which files of a label tool describe a source: those that are named, or the ones that lie where it puts them."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from regraft.data.files import access
from regraft.data.sources.listing import SPLIT_WORDS, quoted
from regraft.data.sources.walk import is_hidden, is_picture_name
from regraft.data.tools.annotated import Annotated, Export
from regraft.data.tools.export import UNKNOWN_TOOL, read_export
from regraft.errors import DataError

__all__ = ["TOOL_SUFFIXES", "ToolFile", "ToolSource", "find_tool", "named_tool"]

TOOL_SUFFIXES = (".json", ".xml")
_OF_SPLIT = re.compile(r"(?:.*[_\-])?(train|training|val|valid|validation|test)(?:[_\-]?(?:mini|\d+))*", re.IGNORECASE)
_FEW = 5
_MOST = 50  # files that are opened to see what they are

Purpose = Literal["labels", "masks"]


@dataclass(frozen=True)
class ToolFile:
    """One file of a label tool.

    Attributes:
        path: The file.
        export: What it says; a text is the reason why it cannot be read.
        split: `train`, `val` or `test` where the file, or its folder, stands for one; else empty.
    """

    path: Path
    export: Export | str
    split: str = ""


@dataclass(frozen=True)
class ToolSource:
    """The files of a label tool that describe a source.

    Attributes:
        files: All of them.
        purpose: Whether they say classes of images, or what their pixels show.
    """

    files: tuple[ToolFile, ...]
    purpose: Purpose

    @property
    def tool(self) -> str:
        """The name of the tool."""
        return next((file.export.tool for file in self.files if isinstance(file.export, Export)), "a label tool")

    @property
    def images(self) -> Iterator[tuple[ToolFile, Annotated]]:
        """Each image with the file that it is of."""
        for file in self.files:
            for image in file.export.images if isinstance(file.export, Export) else ():
                yield file, image


def named_tool(source: Path, named: str | os.PathLike[str], purpose: Purpose) -> ToolSource | None:
    """Return the files that were named with `--labels` or `--masks`; None where they are of no label tool.

    Args:
        source: The folder of the images.
        named: A file, or a pattern of files below the folder, such as `*.json`.
        purpose: What they were named for.
    """
    text = os.fspath(named)
    if not text.lower().endswith(TOOL_SUFFIXES):
        return None
    path = Path(text)
    place, pattern = (path.parent, path.name) if path.is_absolute() else (source, text)
    found = [path] if access.is_file(path) else access.files_like(place, pattern)
    files = tuple(ToolFile(file, read_export(file), _split_of(source, file)) for file in found if access.is_file(file))
    exports = [file.export for file in files if isinstance(file.export, Export)]
    if purpose == "masks" and (not exports or exports[0].tool == "COCO"):
        return None  # which has a way of its own
    return ToolSource(files, purpose) if files else None


def find_tool(source: Path) -> ToolSource | None:
    """Return the files of a label tool that a source is, or that lie in a folder of images; None where there are none.

    Raises:
        DataError: A file that is no export; several exports; or one that may be meant for classes or for masks.
    """
    if access.is_folder(source):
        files = _beside_images(source) or _of_folder(source)
        return ToolSource(files, _purpose(source, files)) if files else None
    if source.suffix.lower() not in TOOL_SUFFIXES or not access.is_file(source):
        return None
    export = read_export(source)
    if isinstance(export, str):
        raise DataError(
            f"{str(source)!r} {export}.",
            "an export of LabelMe, Label Studio (JSON) or CVAT (images 1.1), JSON of the COCO kind, a list or a table",
            "export it again, or write a table with the columns path and label",
        )
    files = (ToolFile(source, export),)
    return ToolSource(files, _purpose(source, files))


def _beside_images(source: Path) -> tuple[ToolFile, ...]:
    """Return the files of LabelMe that lie beside their images, in the folder or in those of its splits."""
    places = [source, *(source / name for name in _names(source) if name.lower() in SPLIT_WORDS)]
    for place in places:
        first = _first_beside(place)
        export = None if first is None else read_export(first)
        if isinstance(export, Export) and export.tool == "LabelMe":
            break
    else:
        return ()
    below = (Path(folder, name) for folder, names in access.walk(source) for name in names if name.endswith(".json"))
    found = sorted(path for path in below if not any(map(is_hidden, path.relative_to(source).parts)))
    files = [ToolFile(path, read_export(path), _split_of(source, path)) for path in found]
    return tuple(file for file in files if file.export != UNKNOWN_TOOL)


def _first_beside(folder: Path) -> Path | None:
    """Return the first JSON file that is called as an image beside it."""
    names = _names(folder)
    stems = _pictured(names)
    pairs = (os.path.splitext(name) for name in names)
    return next((folder / (stem + end) for stem, end in pairs if end.lower() == ".json" and stem in stems), None)


def _of_folder(source: Path) -> tuple[ToolFile, ...]:
    """Return the exports in a folder, or in its folder `annotations`: one, or one for each split.

    Raises:
        DataError: There are several.
    """
    found: list[Path] = []
    for place in (source, source / "annotations"):
        names = _names(place)
        stems = _pictured(names)  # what lies beside an image is said of that image alone
        ends = [(name, *os.path.splitext(name)) for name in names]
        found += [place / name for name, stem, end in ends if end.lower() in TOOL_SUFFIXES and stem not in stems]
    files = [ToolFile(path, read_export(path), _split_of(source, path)) for path in found[:_MOST]]
    files = [file for file in files if isinstance(file.export, Export) and file.export.images]
    if len(files) > 1 and any(isinstance(file.export, Export) and file.export.tool == "COCO" for file in files):
        labelled = [file for file in files if any(image.labels for image in _images(file))]
        files = labelled or files
    splits = [file.split for file in files]
    if len(files) > 1 and (len(set(splits)) < len(files) or "train" not in splits):
        raise DataError(
            f"{os.fspath(source)!r} holds several exports: {quoted((file.path.name for file in files), _FEW)}.",
            "one, or one for each split, such as train.json and val.json",
            f"name it (`--labels {files[0].path.name}` for classes, `--masks {files[0].path.name}` for masks)",
        )
    return tuple(files)


def _images(file: ToolFile) -> Sequence[Annotated]:
    return file.export.images if isinstance(file.export, Export) else ()


def _split_of(source: Path, path: Path) -> str:
    """Return the split that a file stands for, by the folder that it lies in, or by its name."""
    inside = path.relative_to(source).parts if path.is_relative_to(source) else ()
    if len(inside) > 1 and inside[0].lower() in SPLIT_WORDS:
        return SPLIT_WORDS[inside[0].lower()]
    match = _OF_SPLIT.fullmatch(path.stem)
    return (
        SPLIT_WORDS[match[1].lower()] if match is not None and (len(inside) < 2 or inside[0] == "annotations") else ""
    )


def _purpose(source: Path, files: Sequence[ToolFile]) -> Purpose:
    """Return what the files say: classes of images, or shapes.

    Raises:
        DataError: Both, or boxes alone; or nothing.
    """
    images = [image for file in files for image in _images(file)]
    labels = any(image.labels for image in images)
    shapes = any(not shape.is_box for image in images for shape in image.shapes)
    boxes = any(shape.is_box for image in images for shape in image.shapes)
    of_coco = any(isinstance(file.export, Export) and file.export.tool == "COCO" for file in files)
    name = files[0].path.name if len(files) == 1 else "'*.json'"
    folder = source if access.is_folder(source) else source.parent
    if shapes and not labels:
        return "masks"
    if labels and not (shapes or boxes):
        return "labels"
    if not (labels or shapes or boxes) and any(isinstance(file.export, str) or file.export.faults for file in files):
        return "labels"  # which tells what is wrong with them
    said = "shapes" if shapes else "boxes"
    held = f"classes of whole images and {said}" if labels and not of_coco else said
    raise DataError(
        f"{name} holds {held if labels or boxes else 'neither classes of images nor shapes'}.",
        "classes of whole images, or polygons and masks" if not (labels or boxes) else "what to train on, by name",
        f"`{folder} --labels {name}` for classes of images, `{folder} --masks {name}` for a class of each pixel",
    )


def _names(folder: Path) -> list[str]:
    """Return the visible names in a folder, sorted; none where it cannot be opened."""
    try:
        return [name for name in access.names_in(folder) if not is_hidden(name)]
    except OSError:
        return []


def _pictured(names: Sequence[str]) -> set[str]:
    """Return the names of images without their suffix."""
    return {os.path.splitext(name)[0] for name in names if is_picture_name(name)}
