"""Small grey versions of images, to compare them by: as they are, and without a frame around them."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from PIL import Image

__all__ = ["SIDE", "Thumbnails", "thumbnail_of"]

Pixels = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.int64]

SIDE = 48
_PLAIN = 0.75  # of a line of pixels that have its colour, in a frame
_SAME = 10  # difference in brightness up to which they do
_LEAST = 0.4  # of a side, that is not frame
_MOST = 0.97  # of the image, from which there is none


class Thumbnails:
    """The thumbnails of images, uint8 (SIDE, SIDE) each, whatever their aspect ratio.

    Args:
        num: How many images there are.
    """

    def __init__(self, num: int) -> None:
        self._whole = np.zeros((num, SIDE, SIDE), dtype=np.uint8)
        self._framed: dict[int, Pixels] = {}

    def keep(self, row: int, whole: Pixels, inner: Pixels | None) -> None:
        """Keep the thumbnail of an image, and what is inside its frame, where it has one."""
        self._whole[row] = whole
        if inner is not None:
            self._framed[row] = inner

    @property
    def whole(self) -> Pixels:
        """Of each image as it is."""
        return self._whole

    def inner(self) -> Rows:
        """Return for each image the number of what is inside its frame, for `take`; its own number without one."""
        found = np.arange(len(self._whole))
        found[list(self._framed)] = len(self._whole) + np.arange(len(self._framed))
        return found

    def take(self, numbers: Rows) -> Pixels:
        """Return thumbnails by number: those of images, and, above, those that `inner` names."""
        num = len(self._whole)
        taken = self._whole[np.minimum(numbers, num - 1)]
        above = np.flatnonzero(numbers >= num)
        if len(above):
            framed = list(self._framed.values())
            taken[above] = [framed[number - num] for number in numbers[above].tolist()]
        return taken


def thumbnail_of(grey: Image.Image) -> tuple[Pixels, Pixels | None]:
    """Return the thumbnail of a grey image, and, where it has a frame, that of what is inside."""
    whole, box = _squashed(grey), _inside(np.asarray(grey, dtype=np.int16))
    return whole, None if box is None else _squashed(grey.crop(box))


def _squashed(grey: Image.Image) -> Pixels:
    return np.asarray(grey.resize((SIDE, SIDE), Image.Resampling.BOX, reducing_gap=2.0))


def _inside(grey: npt.NDArray[np.int16]) -> tuple[int, int, int, int] | None:
    """Return the box of what is inside a frame of nearly plain lines: left, top, right, bottom; None without one."""
    height, width = grey.shape
    top, bottom, left, right = (_num_plain(lines) for lines in (grey, grey[::-1], grey.T, grey.T[::-1]))
    inner_height, inner_width = height - top - bottom, width - left - right
    if inner_height < _LEAST * height or inner_width < _LEAST * width:
        return None
    if inner_height * inner_width > _MOST * height * width:
        return None
    return left, top, width - right, height - bottom


def _num_plain(lines: npt.NDArray[np.int16]) -> int:
    """Return how many lines from the first on are nearly of one colour."""
    if not _are_plain(lines[:1])[0]:  # as in most images
        return 0
    most = int(len(lines) * (1 - _LEAST))
    is_plain = _are_plain(lines[:most])
    return most if is_plain.all() else int(is_plain.argmin())


def _are_plain(lines: npt.NDArray[np.int16]) -> npt.NDArray[np.bool_]:
    are_plain: npt.NDArray[np.bool_] = (np.abs(lines - np.median(lines, axis=1, keepdims=True)) <= _SAME).mean(
        1
    ) >= _PLAIN
    return are_plain
