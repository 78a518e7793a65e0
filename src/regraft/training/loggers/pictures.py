"""Pictures for the eye, as PNG bytes: a grid of network inputs, a confusion matrix."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

__all__ = ["Picture", "confusion_picture", "grid_picture"]

Pixels = npt.NDArray[np.uint8]
Counts = npt.NDArray[np.int64]
_GAP = 2
_MOST_NAMED = 40  # beyond this the names of the classes would be smaller than anyone can read
_NAME_LENGTH = 18
_RIGHT, _WRONG = np.array([22, 120, 70.0]), np.array([190, 60, 40.0])


@dataclass(frozen=True)
class Picture:
    """A PNG file in memory, with its size in pixels and its number of channels."""

    png: bytes
    height: int
    width: int
    channels: int


def grid_picture(images_NHWC: Pixels, columns: int = 4) -> Picture:
    """Return images side by side, unscaled, with a gap between them.

    Args:
        images_NHWC: uint8 (N, H, W, 3).
        columns: Images in a row.
    """
    num, height, width, _ = images_NHWC.shape
    columns = min(columns, num)
    rows = -(-num // columns)
    grid = np.full((rows * (height + _GAP) - _GAP, columns * (width + _GAP) - _GAP, 3), 255, dtype=np.uint8)
    for place, image in enumerate(images_NHWC):
        top, left = place // columns * (height + _GAP), place % columns * (width + _GAP)
        grid[top : top + height, left : left + width] = image
    return _encoded(Image.fromarray(grid))


def confusion_picture(counts: Counts, class_names: Sequence[str]) -> Picture:
    """Return a confusion matrix: a row for each true class, a column for each predicted one, shaded by the share of its
    row.

    Args:
        counts: int64 (C, C).
        class_names: C names; they are drawn beside the rows and counts into the cells where there is room.
    """
    named = len(class_names) <= _MOST_NAMED
    cell = 28 if named else max(1, 800 // len(class_names))
    left = 8 + 7 * min(max(map(len, class_names)), _NAME_LENGTH) if named else 0
    side = cell * len(class_names)
    image = Image.new("RGB", (left + side, side), "white")
    image.paste(Image.fromarray(_shades(counts)).resize((side, side), Image.Resampling.NEAREST), (left, 0))
    if named:
        _write_names(ImageDraw.Draw(image), counts, class_names, left, cell)
    return _encoded(image)


def _shades(counts: Counts) -> Pixels:
    """Return uint8 (C, C, 3): right answers green, wrong ones red, the darker the larger their share of the row."""
    shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
    strength = np.where(counts > 0, 0.12 + 0.88 * shares, 0.0)[..., None]  # one among thousands is still seen
    colours = np.where(np.eye(len(counts), dtype=bool)[..., None], _RIGHT, _WRONG)
    shades: Pixels = (255 + strength * (colours - 255)).round().astype(np.uint8)
    return shades


def _write_names(draw: ImageDraw.ImageDraw, counts: Counts, class_names: Sequence[str], left: int, cell: int) -> None:
    font = ImageFont.load_default()
    for row, name in enumerate(class_names):
        draw.text((left - 5, (row + 0.5) * cell), _drawable(name), fill="black", anchor="rm", font=font)
        total = max(int(counts[row].sum()), 1)
        for column, count in enumerate(counts[row].tolist()):
            if count:
                ink = "white" if count / total > 0.5 else "black"
                place = (left + (column + 0.5) * cell, (row + 0.5) * cell)
                text = str(count) if count < 10_000 else f"{count // 1000}k"
                draw.text(place, text, fill=ink, anchor="mm", font=font)


def _drawable(name: str) -> str:
    """Return the name on one line, cut where it is long; what no font has a sign for becomes a question mark."""
    name = "".join(char if char.isprintable() else "?" for char in name)
    return name if len(name) <= _NAME_LENGTH else name[: _NAME_LENGTH - 1] + "…"


def _encoded(image: Image.Image) -> Picture:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return Picture(stream.getvalue(), image.height, image.width, len(image.getbands()))
