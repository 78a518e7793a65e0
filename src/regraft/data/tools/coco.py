"""JSON of the COCO kind as classes of whole images: `images`, `annotations` with a `category_id`, `categories`.

iNaturalist, iWildCam, Herbarium and others are published so. Format: cocodataset.org, "Data format".
"""

from __future__ import annotations

from collections import Counter
from typing import Any

from regraft.data.tools.annotated import DAMAGED, Annotated, Export, Shape, collected, label_of, number, rectangle

__all__ = ["is_coco", "read_coco"]


def is_coco(values: Any) -> bool:
    """Return whether parsed JSON is of the COCO kind."""
    return isinstance(values, dict) and all(isinstance(values.get(key), list) for key in ("images", "annotations"))


def read_coco(values: Any) -> Export:
    """Return the images of a file with the categories of their annotations; what belongs to none is a fault."""
    export = Export("COCO")
    names = _categories(values.get("categories"), export)
    of_image: dict[str, list[Any]] = {}
    known = {str(image.get("id")) for image in values["images"] if isinstance(image, dict)}
    for row, item in enumerate(values["annotations"], start=1):
        try:
            owner, category = str(item["image_id"]), str(item["category_id"])
        except DAMAGED:
            export.faults.append((row, "is not an annotation with image_id and category_id"))
            continue
        if owner not in known:
            export.faults.append((row, f"is an annotation of the image {owner!r:.40}, which the file does not list"))
        elif category not in names:
            export.faults.append(
                (row, f"is an annotation of the category {category!r:.40}, which the file does not list")
            )
        else:
            of_image.setdefault(owner, []).append((names[category], item))

    def image(row: int, entry: Any, flat: Counter[str]) -> Annotated:
        own = of_image.get(str(entry["id"]), [])
        labels = tuple(sorted({name for name, _ in own})) or None
        shapes = [shape for name, item in own if (shape := _shape(name, item)) is not None]
        height, width = entry.get("height"), entry.get("width")
        size = None if height is None or width is None else (int(height), int(width))
        return Annotated(row, (str(entry["file_name"]),), labels, tuple(shapes), size)

    return collected(export, values["images"], image)


def _shape(name: str, item: Any) -> Shape | None:
    if item.get("segmentation"):
        return Shape(name, item["segmentation"])
    if not item.get("bbox"):
        return None
    left, top, wide, high = map(number, item["bbox"])
    return Shape(name, rectangle(left, top, left + wide, top + high), is_box=True)


def _categories(given: Any, export: Export) -> dict[str, str]:
    """Return the name of each category by its number; of two with one name, the names tell which is which."""
    names: dict[str, str] = {}
    for row, item in enumerate(given if isinstance(given, list) else [], start=1):
        try:
            names[str(item["id"])] = label_of(item["name"])
        except DAMAGED:
            export.faults.append((row, "is not a category with id and name"))
    twice = {name for name, count in Counter(names.values()).items() if count > 1}
    return {key: f"{name} ({key})" if name in twice else name for key, name in names.items()}
