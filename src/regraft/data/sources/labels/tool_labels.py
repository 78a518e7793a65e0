"""Classes of whole images from a label tool's export: tags, choices, flags, categories."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from regraft.data.files import access
from regraft.data.sources.bad_rows import BadRows
from regraft.data.sources.labels.label_cells import Column
from regraft.data.sources.labels.locate import Locator
from regraft.data.sources.labels.records import Record, list_records
from regraft.data.sources.listing import SPLIT_WORDS, Listing, quoted
from regraft.data.sources.tool_files import ToolFile, ToolSource
from regraft.data.tools.annotated import Annotated, Export
from regraft.wording import quantity

__all__ = ["begun", "list_tool_labels", "split_words"]

_RARE = 20  # one image of as many with several labels is a mistake; more of them are meant
_COLUMN = Column("", many=True)

_Rows = Sequence[tuple[ToolFile, Annotated]]


def begun(source: Path, tool: ToolSource) -> tuple[BadRows, list[str], Locator]:
    """Return the faults of an export so far, the folders of its images, and what finds the images in them."""
    bad = BadRows()
    tell_faults(tool, bad)
    folders = image_folders(source, tool)
    return bad, folders, Locator(folders)


def list_tool_labels(source: Path, tool: ToolSource, *, for_training: bool = True) -> Listing:
    """Return the images of a label tool's export with their classes.

    Raises:
        DataError: With every mistake at once.
    """
    bad, folders, locator = begun(source, tool)
    rows, warnings = _labelled([_by_shapes(file, image) for file, image in tool.images], bad)
    if any(not image.labels for _, image in tool.images) and not any(image.labels for _, image in tool.images):
        warnings.append("No image has a class as a whole: its classes are those of its objects.")
    words = split_words(tool, warnings)
    records = list(_records(rows, words, locator))
    listing = list_records(records, folders[0], locator, bad, None, for_training=for_training)
    if not len(bad) and not listing.rows:
        bad.add(tool.files[0].path, None, "empty lists", "has no labelled image")
    if len(bad):
        raise bad.error(source, folders[0])
    return replace(listing, warnings=(*warnings, *listing.warnings))


def image_folders(source: Path, tool: ToolSource) -> list[str]:
    """Return the folders that the names of images are relative to, the first one being the root of the data set."""
    root = source if access.is_folder(source) else source.parent
    places = [root, *(file.path.parent for file in tool.files[:1])]
    inside = [place / name for place in places for name in ("images", "data")]
    return [os.fspath(place) for place in dict.fromkeys([*places, *inside]) if access.is_folder(place)]


def tell_faults(tool: ToolSource, bad: BadRows) -> None:
    """Add files and entries that cannot be read."""
    for file in tool.files:
        if isinstance(file.export, str):
            bad.add(file.path, None, "files that cannot be read", file.export)
            continue
        alone = file.export.tool == "LabelMe"  # one image in each file
        for row, reason in file.export.faults:
            bad.add(file.path, None if alone else row, "entries that cannot be read", reason)


def split_words(tool: ToolSource, warnings: list[str]) -> dict[str, str]:
    """Return the split of each word that the tool has for parts; none where not all images have one that is known."""
    words = Counter(image.split.lower() for _, image in tool.images)
    if all(word in SPLIT_WORDS for word in words):
        return {word: SPLIT_WORDS[word] for word in words}
    told = [word for word in words if word not in ("", "default")]
    if told:
        warnings.append(
            f"The parts of {tool.tool} ({quoted(told, 5)}) are not all train, val or test, and were not used."
        )
    return {}


def _by_shapes(file: ToolFile, image: Annotated) -> tuple[ToolFile, Annotated]:
    """Return an image without classes of its own with those of its objects."""
    if image.labels is not None or not image.shapes:
        return file, image
    return file, replace(image, labels=tuple(sorted({shape.label for shape in image.shapes})))


def _labelled(rows: _Rows, bad: BadRows) -> tuple[_Rows, list[str]]:
    """Return the images that have labels, and what people should know of the others."""
    labelled = [(file, image) for file, image in rows if image.labels]
    several = [(file, image) for file, image in labelled if len(image.labels or ()) > 1]
    meant = any(image.says_several for _, image in several) or len(several) * _RARE > len(labelled)
    kept = [(file, image) for file, image in rows if image.labels or (meant and image.labels is not None)]
    for file, image in () if meant else several:
        own = "|".join(image.labels or ())
        bad.add(
            file.path, image.row, "images with several labels", f"{image.names[0]!r} is {own!r}, and others have one"
        )
        bad.hints["several"] = (
            "Where an image may have several labels, write a table with the columns path and labels (a|b)."
        )
    left = len(rows) - len(kept)
    said = f"{quantity(left, 'image is', 'images are')} not labelled, and {'was' if left == 1 else 'were'} left out."
    return kept, [said] if left else []


def _records(rows: _Rows, words: dict[str, str], locator: Locator) -> Iterator[Record]:
    for file, image in rows:
        near = os.fspath(file.path.parent)
        name = next((name for name in image.names if locator.find(name, near)[0]), image.names[0])
        row = image.row if isinstance(file.export, Export) and file.export.tool != "LabelMe" else 1
        split = file.split or words.get(image.split.lower(), "")
        yield Record(file.path, row, name, image.labels or (), split, near, True, _COLUMN)
