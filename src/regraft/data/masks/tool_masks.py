"""The mask of one image from a label tool's export, as `export.json#3:1,4:480x640` names it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from regraft.data.tools.export import read_export

__all__ = ["Objects", "fetch_of_tool", "tool_reference"]

_REFERENCE = re.compile(r"(.+\.(?:json|xml))#(\d{1,9}):([\d,]*):(\d{1,6})x(\d{1,6})", re.IGNORECASE | re.DOTALL)


class Objects(NamedTuple):
    """The objects of one image: its height and width, and the number and form of each, later ones on top."""

    size: tuple[int, int]
    segments: list[tuple[int, Any]]


def tool_reference(file: str, row: int, numbers: Sequence[int], size: tuple[int, int]) -> str:
    """Return the name of the mask of one image.

    Args:
        file: The export.
        row: The place of the image in it, from 1.
        numbers: Of the classes of its objects, in the string order of their names.
        size: Its height and width.
    """
    return f"{file}#{row}:{','.join(map(str, numbers))}:{size[0]}x{size[1]}"


def fetch_of_tool(path: str) -> Objects | str | None:
    """Return the objects of one image, or the reason why there are none; None for the name of another kind of mask."""
    match = _REFERENCE.fullmatch(path)
    if match is None:
        return None
    export = read_export(match[1])
    if isinstance(export, str):
        return export
    image = export.image(int(match[2]))
    if image is None:
        return f"has no image {match[2]}"
    names = sorted({shape.label for shape in image.shapes})
    numbers = [int(number) for number in match[3].split(",") if number]
    if len(numbers) != len(names):
        return "has other classes than when it was listed"
    number = dict(zip(names, numbers, strict=True))
    return Objects((int(match[4]), int(match[5])), [(number[shape.label], shape.form) for shape in image.shapes])
