"""LabelMe: a JSON file beside each image, with flags for the whole image and shapes for its objects.

Format: wkentaro/labelme, `labelme/label_file.py` and `labelme/utils/shape.py`. Later shapes lie on top.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from pathlib import Path
from typing import Any

from regraft.data.tools.annotated import Annotated, Export, Shape, collected, ellipse, label_of, number, rectangle

__all__ = ["is_labelme", "read_labelme"]

_FLAT = ("point", "points", "line", "linestrip")


def is_labelme(values: Any) -> bool:
    """Return whether parsed JSON is a file of LabelMe."""
    return isinstance(values, dict) and isinstance(values.get("shapes"), list) and "imagePath" in values


def read_labelme(values: Any, path: Path) -> Export:
    """Return the one image of a file; its image is the one beside it, or the one that it names."""
    return collected(Export("LabelMe"), [values], lambda row, entry, flat: _image(row, entry, flat, path))


def _image(row: int, entry: Any, flat: Counter[str], path: Path) -> Annotated:
    flags = entry.get("flags") or {}
    labels = tuple(sorted(label_of(name) for name, value in flags.items() if value is True)) if flags else None
    shapes = [_shape(shape) for shape in entry["shapes"]]
    flat.update(kind for kind in shapes if isinstance(kind, str))
    written = str(entry["imagePath"] or "").replace("\\", "/")
    names = tuple(dict.fromkeys(name for name in (written, os.path.basename(written), path.stem) if name))
    height, width = entry.get("imageHeight"), entry.get("imageWidth")
    size = None if height is None or width is None else (int(height), int(width))
    return Annotated(row, names, labels, tuple(shape for shape in shapes if not isinstance(shape, str)), size)


def _shape(shape: Any) -> Shape | str:
    """Return an object, or its kind where it has no area."""
    kind = shape.get("shape_type") or "polygon"
    points = [(number(x), number(y)) for x, y in shape["points"]]
    if kind in _FLAT:
        return str(kind)
    label = label_of(shape["label"])
    if kind == "polygon":
        return Shape(label, [[value for point in points for value in point]])
    if kind not in ("rectangle", "circle", "mask") or len(points) != 2:
        raise ValueError(f"a shape of the kind {kind!r:.40} with {len(points)} points is unknown")
    (left, top), (right, bottom) = points
    if kind == "circle":
        radius = math.hypot(right - left, bottom - top)
        return Shape(label, ellipse(left, top, radius, radius))
    if kind == "mask":
        return Shape(label, {"at": [int(left), int(top)], "png": str(shape["mask"])})
    return Shape(label, rectangle(left, top, right, bottom), is_box=True)
