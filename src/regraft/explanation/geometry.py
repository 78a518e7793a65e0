"""Where in an image a network looks: the resize policy, undone."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from PIL import Image

from regraft.data.decode.decode import PixelProgram

__all__ = ["View", "view_of"]

Values = npt.NDArray[np.float32]


@dataclass(frozen=True)
class View:
    """The rectangle that a network's input covers, in pixels of the upright image; a padded one reaches beyond it.

    Attributes:
        size: Height and width of the upright image.
        left: Where it begins.
        top: Where it begins.
        width: How far it reaches.
        height: How far it reaches.
    """

    size: tuple[int, int]
    left: float
    top: float
    width: float
    height: float

    def spread(self, places: Values, size: tuple[int, int]) -> Values:
        """Return a map of places over the whole image, at `size` (height, width); 0 where the network did not look."""
        rows, columns = places.shape
        per_x, per_y = self.size[1] / size[1], self.size[0] / size[0]  # image pixels for each of the result
        across, down = columns / self.width, rows / self.height  # places for each image pixel
        affine = (per_x * across, 0.0, -self.left * across, 0.0, per_y * down, -self.top * down)
        image = Image.fromarray(np.ascontiguousarray(places, dtype=np.float32))
        turned = image.transform((size[1], size[0]), Image.Transform.AFFINE, affine, Image.Resampling.BICUBIC)
        return np.asarray(turned, dtype=np.float32)

    def padded(self, shape: tuple[int, int], padded: tuple[int, int]) -> View:
        """Return what is covered where a network pads its input, of this height and width, at the bottom and right."""
        return replace(self, width=self.width * padded[1] / shape[1], height=self.height * padded[0] / shape[0])

    def covers(self, size: tuple[int, int]) -> npt.NDArray[np.bool_]:
        """Return which pixels of the image, at `size` (height, width), the network saw."""
        y = (np.arange(size[0]) + 0.5) * self.size[0] / size[0]
        x = (np.arange(size[1]) + 0.5) * self.size[1] / size[1]
        inside_y = (y >= self.top) & (y <= self.top + self.height)
        inside_x = (x >= self.left) & (x <= self.left + self.width)
        return np.asarray(inside_y[:, None] & inside_x[None])

    def inside(self, shape: tuple[int, int]) -> npt.NDArray[np.bool_]:
        """Return which pixels of the network's input, of this height and width, show the image, not its padding."""
        y = self.top + (np.arange(shape[0]) + 0.5) * self.height / shape[0]
        x = self.left + (np.arange(shape[1]) + 0.5) * self.width / shape[1]
        return np.asarray(((y > 0) & (y < self.size[0]))[:, None] & ((x > 0) & (x < self.size[1]))[None])

    def point(self, row: int, column: int, shape: tuple[int, int]) -> tuple[float, float]:
        """Return the middle of a place of a map of this shape, as (x, y) inside the image, in pixels."""
        x = self.left + (column + 0.5) * self.width / shape[1]
        y = self.top + (row + 0.5) * self.height / shape[0]
        return min(max(x, 0.0), float(self.size[1])), min(max(y, 0.0), float(self.size[0]))


def view_of(program: PixelProgram, size: tuple[int, int]) -> View:
    """Return where a program looks in an upright image of this height and width."""
    height, width = size
    if program.resize == "squash":
        return View(size, 0.0, 0.0, float(width), float(height))
    wanted_height, wanted_width = program.stored or program.size  # a second resize squashes
    scales = (wanted_width / width, wanted_height / height)
    if program.resize == "crop":
        scale = max(scales) / program.crop_fraction
        tall, wide = min(wanted_height / scale, height), min(wanted_width / scale, width)
        return View(size, (width - wide) / 2, (height - tall) / 2, wide, tall)
    scale = min(scales)
    inner = [
        max(1, min(wanted, round(side * scale)))
        for wanted, side in zip((wanted_height, wanted_width), size, strict=True)
    ]
    down, across = inner[0] / height, inner[1] / width
    top, left = (wanted_height - inner[0]) // 2, (wanted_width - inner[1]) // 2
    return View(size, -left / across, -top / down, wanted_width / across, wanted_height / down)
