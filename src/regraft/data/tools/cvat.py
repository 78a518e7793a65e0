"""CVAT for images 1.1: one XML file, with tags for whole images and polygons, masks, ellipses and boxes.

Format: docs.cvat.ai, "XML annotation format". A document type, and with it every entity, is refused.
"""

from __future__ import annotations

from collections import Counter
from typing import Any
from xml.parsers import expat

from regraft.data.tools.annotated import Annotated, Export, Shape, collected, ellipse, label_of, number, rectangle

__all__ = ["is_cvat", "read_cvat"]

_FLAT = ("points", "polyline", "cuboid", "skeleton")
_AREAS = ("polygon", "mask", "ellipse", "box")


class _RefusedError(ValueError):
    """A document that is well formed and is not read."""


def is_cvat(head: bytes) -> bool:
    """Return whether the start of a file is that of CVAT's XML."""
    return head.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<") and b"<annotations" in head


def read_cvat(data: bytes) -> Export | str:
    """Return the images of an export, or the reason as text why it cannot be read."""
    reader = _Reader()
    parser = expat.ParserCreate()
    parser.StartDoctypeDeclHandler = _refuse_doctype
    parser.StartElementHandler = reader.start
    parser.EndElementHandler = reader.end
    try:
        parser.Parse(data, True)
    except (expat.ExpatError, _RefusedError) as error:
        return f"is not an export of CVAT for images ({error})"
    if not reader.is_cvat:
        return "is not an export of CVAT for images (its outermost element is not `annotations`)"
    if reader.num_tracks and not reader.images:
        return "is an export of CVAT for videos; export it as `CVAT for images 1.1`"
    return collected(Export("CVAT"), reader.images, _image)


def _refuse_doctype(*_: object) -> None:
    raise _RefusedError("it declares a document type, which may hold entities")


class _Reader:
    """The elements of a document, as they come.

    Attributes:
        images: Of each image its attributes, and the names and attributes of what is in it.
        is_cvat: Whether the outermost element is that of CVAT.
        num_tracks: How many tracks of videos there are.
    """

    def __init__(self) -> None:
        self.images: list[tuple[dict[str, str], list[tuple[str, dict[str, str]]]]] = []
        self.is_cvat = False
        self.num_tracks = 0
        self._depth = 0
        self._in_image = False

    def start(self, name: str, attributes: dict[str, str]) -> None:
        """Take in the start of an element."""
        self._depth += 1
        if self._depth == 1:
            self.is_cvat = name == "annotations"
        elif self._depth == 2:
            self.num_tracks += name == "track"
            self._in_image = name == "image"
            if self._in_image:
                self.images.append((attributes, []))
        elif self._depth == 3 and self._in_image:
            self.images[-1][1].append((name, attributes))

    def end(self, name: str) -> None:
        """Take in the end of an element."""
        self._depth -= 1


def _image(row: int, entry: Any, flat: Counter[str]) -> Annotated:
    attributes, inside = entry
    tags = tuple(sorted({label_of(own["label"]) for name, own in inside if name == "tag"}))
    flat.update(name for name, _ in inside if name in _FLAT)
    areas = [(name, own) for name, own in inside if name in _AREAS]
    areas.sort(key=lambda area: int(area[1].get("z_order", 0)))
    size = (int(attributes["height"]), int(attributes["width"]))
    split = attributes.get("subset", "")
    return Annotated(row, (attributes["name"],), tags or None, tuple(_shape(*area) for area in areas), size, split)


def _shape(name: str, own: dict[str, str]) -> Shape:
    label = label_of(own["label"])
    if name == "polygon":
        corners = [[number(value) for value in point.split(",")] for point in own["points"].split(";")]
        if any(len(corner) != 2 for corner in corners):
            raise ValueError("a polygon has a corner that is not x,y")
        return Shape(label, [[value for corner in corners for value in corner]])
    if name == "mask":
        box = [int(own[key]) for key in ("left", "top", "width", "height")]
        return Shape(label, {"box": box, "runs": [int(run) for run in own["rle"].split(",")]})
    turn = number(own.get("rotation", 0))
    if name == "ellipse":
        middle, axes = (number(own["cx"]), number(own["cy"])), (number(own["rx"]), number(own["ry"]))
        return Shape(label, ellipse(*middle, *axes, turn))
    left, top, right, bottom = (number(own[key]) for key in ("xtl", "ytl", "xbr", "ybr"))
    return Shape(label, rectangle(left, top, right, bottom, turn), is_box=True)
