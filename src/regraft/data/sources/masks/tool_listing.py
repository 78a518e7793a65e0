"""Images and masks from a label tool's export: polygons, masks, brushes and boxes, drawn when they are needed."""

from __future__ import annotations

import os
from pathlib import Path

from regraft.data.masks.coco import REST
from regraft.data.masks.mask_check import upright_size
from regraft.data.masks.tool_masks import tool_reference
from regraft.data.sources.labels.tool_labels import begun, split_words
from regraft.data.sources.listing import Listing
from regraft.data.sources.masks.class_list import Entry
from regraft.data.sources.masks.coco import by_name
from regraft.data.sources.masks.mask_listing import Classes, _entries, _Found, _listed
from regraft.data.sources.tool_files import ToolSource
from regraft.data.tools.annotated import Export
from regraft.wording import quantity

__all__ = ["list_tool_masks"]


def list_tool_masks(source: Path, tool: ToolSource, classes: Classes) -> Listing:
    """Return the images of a label tool's export, with masks that are drawn from their objects.

    Raises:
        DataError: With every mistake at once.
    """
    bad, folders, locator = begun(source, tool)
    names = sorted({shape.label for _, image in tool.images for shape in image.shapes})
    number = {name: place for place, name in enumerate(names, start=1)}
    warnings: list[str] = []
    words = split_words(tool, warnings)
    rows: dict[str, tuple[list[str], list[str]]] = {}
    first: dict[str, int] = {}
    for file, image in tool.images:
        found = [locator.find(name, os.fspath(file.path.parent)) for name in image.names]
        path = next((path for path, _ in found if path), "")
        size = image.size or (upright_size(path) or (0, 0))[::-1]
        if not path:
            reason = found[0][1] or locator.hint(image.names[0])
            bad.add(file.path, image.row, "missing files", reason)
        elif path in first:
            bad.add(file.path, image.row, "contradictions", f"{image.names[0]!r} has objects in row {first[path]} too")
        else:
            images, masks = rows.setdefault(file.split or words.get(image.split.lower(), ""), ([], []))
            own = [number[name] for name in sorted({shape.label for shape in image.shapes})]
            images.append(path)
            masks.append(tool_reference(os.fspath(file.path), image.row, own, size))
        first.setdefault(path, image.row)
    if not rows and not len(bad):
        bad.add(tool.files[0].path, None, "empty lists", "has no image")
    if rows and "" not in rows and "train" not in rows:
        bad.add(tool.files[0].path, None, "missing splits", "no image is for train")
    if len(bad):
        raise bad.error(source, folders[0])
    root, kept = Path(folders[0]), _Found(warnings=[*warnings, *_told(tool)])
    entries, origin = (
        [Entry("background", REST), *(Entry(name, number[name]) for name in names)],
        f"the export of {tool.tool}",
    )
    if classes.table is not None:
        given, origin = _entries(root, (), classes)
        entries = by_name(given, entries)
    order = sorted(rows, key=("", "train", "val", "test").index)
    return _listed(root, {split: rows[split] for split in order}, kept, (entries, origin), classes, ())


def _told(tool: ToolSource) -> list[str]:
    boxes = sum(shape.is_box for _, image in tool.images for shape in image.shapes)
    told = [f"{quantity(boxes, 'box was', 'boxes were')} drawn as filled areas."] if boxes else []
    for file in tool.files:
        for kind, count in file.export.flat.items() if isinstance(file.export, Export) else ():
            told.append(f"{file.path.name}: {count} objects of the kind {kind!r} have no area and were left out.")
    return told
