"""An image as it lies upright, before it is resized: its size, its pixels, and which part of a result it fills."""

from __future__ import annotations

from typing import Any

from regraft.data.decode.decode import PixelProgram
from regraft.data.decode.image_file import exif_orientation, opened_or_reason

__all__ = ["filled_part", "upright_size"]

_QUARTER_TURNS = (5, 6, 7, 8)  # EXIF orientations that exchange height and width


def upright_size(data: bytes) -> tuple[int, int] | str:
    """Return height and width of the image in a file, upright; or the reason as text why there is none."""
    return opened_or_reason(data, _size, deep=True)


def filled_part(program: PixelProgram, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Return top, left, height and width of the part of a program's result that an image of this size fills."""
    height, width = program.size
    if program.resize != "pad":
        return 0, 0, height, width
    first = program.stored or program.size
    scale = min(first[1] / size[1], first[0] / size[0])
    inner = [max(1, min(side, round(own * scale))) for side, own in zip(first, size, strict=True)]
    start = [(side - part) // 2 for side, part in zip(first, inner, strict=True)]
    factors = (height / first[0], width / first[1])  # a second resize squashes
    top, left = (round(place * factor) for place, factor in zip(start, factors, strict=True))
    tall, wide = (max(1, round(part * factor)) for part, factor in zip(inner, factors, strict=True))
    return top, left, min(tall, height - top), min(wide, width - left)


def _size(image: Any) -> tuple[int, int]:
    """Return height and width of an image, turned as its EXIF orientation says."""
    if image.format not in ("JPEG", "MPO"):  # others may say it behind their pixels, or turn while they load
        image.load()
    width, height = image.size
    return (width, height) if exif_orientation(image) in _QUARTER_TURNS else (height, width)
