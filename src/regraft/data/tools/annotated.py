"""What every label tool's export is read into: images with classes and with shapes, and what is wrong with an entry."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

__all__ = ["DAMAGED", "Annotated", "Export", "Shape", "collected", "ellipse", "label_of", "number", "rectangle"]

# What a damaged or hostile entry may raise while it is read.
DAMAGED = (ValueError, KeyError, TypeError, AttributeError, IndexError, OverflowError, RecursionError)

_CORNERS = 72  # of the polygon that stands for an ellipse


class Shape(NamedTuple):
    """One object of an image.

    Attributes:
        label: Its class.
        form: Polygons as COCO has them, or another form that `regraft.data.masks.shapes` draws.
        is_box: Whether it is only the box around an object.
    """

    label: str
    form: Any
    is_box: bool = False


@dataclass(frozen=True)
class Annotated:
    """What a label tool says of one image.

    Attributes:
        row: Its place in the file, from 1.
        names: What the image may be called, the likeliest name first.
        labels: The classes of the image as a whole; None where it has not been labelled.
        shapes: Its objects; a later one lies on top of an earlier one.
        size: Height and width; None where the file does not say them.
        split: The part that it belongs to, as the tool calls it; empty for none.
        says_several: Whether its tool says that an image may have several classes.
    """

    row: int
    names: tuple[str, ...]
    labels: tuple[str, ...] | None = None
    shapes: tuple[Shape, ...] = ()
    size: tuple[int, int] | None = None
    split: str = ""
    says_several: bool = False


@dataclass
class Export:
    """One file of a label tool.

    Attributes:
        tool: The name of the tool.
        images: What it says, by image.
        faults: Entries that cannot be read: their place, and a sentence without its subject.
        flat: How many objects have no area, by kind.
    """

    tool: str
    images: list[Annotated] = field(default_factory=list)
    faults: list[tuple[int, str]] = field(default_factory=list)
    flat: Counter[str] = field(default_factory=Counter)

    def image(self, row: int) -> Annotated | None:
        """Return the image at a place of the file."""
        place = bisect_left(self.images, row, key=lambda image: image.row)
        return self.images[place] if place < len(self.images) and self.images[place].row == row else None


def collected(export: Export, entries: Iterable[Any], read: Callable[[int, Any, Counter[str]], Annotated]) -> Export:
    """Return the export with each entry read; those that cannot be are noted among its faults.

    Args:
        export: Where they go.
        entries: As the file has them.
        read: Makes an image of an entry and its place, and counts the objects without an area.
    """
    for row, entry in enumerate(entries, start=1):
        try:
            export.images.append(read(row, entry, export.flat))
        except DAMAGED as error:
            said = f"lacks {error}" if isinstance(error, KeyError) else " ".join(str(error).split())[:160]
            export.faults.append((row, f"cannot be read ({said or type(error).__name__})"))
    return export


def label_of(value: Any) -> str:
    """Return the name of a class.

    Raises:
        ValueError: It is not a text, or an empty one.
    """
    name = str(value).strip() if isinstance(value, (str, int)) and not isinstance(value, bool) else ""
    if not name or not name.isprintable():
        raise ValueError(f"{value!r:.80} is not the name of a class")
    return name


def number(value: Any) -> float:
    """Return a finite number.

    Raises:
        ValueError: It is none.
    """
    found = float(value)
    if not math.isfinite(found):
        raise ValueError(f"{value!r:.40} is not a finite number")
    return found


def rectangle(left: float, top: float, right: float, bottom: float, turn: float = 0.0, about: str = "middle") -> Any:
    """Return a rectangle as polygons; `turn` is clockwise, in degrees, about its middle or its `corner` (left, top)."""
    corners = ((left, top), (right, top), (right, bottom), (left, bottom))
    centre = (left, top) if about == "corner" else ((left + right) / 2, (top + bottom) / 2)
    return [_turned(corners, centre, turn)]


def ellipse(x: float, y: float, wide: float, high: float, turn: float = 0.0) -> Any:
    """Return an ellipse as polygons, from its middle and its half axes; `turn` is clockwise, in degrees."""
    steps = [2 * math.pi * place / _CORNERS for place in range(_CORNERS)]
    return [_turned([(x + wide * math.cos(step), y + high * math.sin(step)) for step in steps], (x, y), turn)]


def _turned(points: Sequence[tuple[float, float]], centre: tuple[float, float], degrees: float) -> list[float]:
    cos, sin = (math.cos(math.radians(degrees)), math.sin(math.radians(degrees))) if degrees else (1.0, 0.0)
    moved = [(x - centre[0], y - centre[1]) for x, y in points]
    return [value for x, y in moved for value in (centre[0] + x * cos - y * sin, centre[1] + x * sin + y * cos)]
