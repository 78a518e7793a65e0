"""What of an image a network saw, and how to show the image to people."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from regraft.data.cache.stream import DecodedBatch
from regraft.data.decode.decode import PixelProgram, decode_or_reason
from regraft.data.decode.memory import MemoryImage, read_source
from regraft.data.decode.upright import upright_size
from regraft.errors import DataError
from regraft.explanation.geometry import View, view_of

__all__ = ["Seen", "seen_in"]

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Seen:
    """An image, and the part of it that a network saw.

    Attributes:
        source: The file, or the image in memory.
        view: The part that was seen.
        pixels: The network's input for the eye, where the file itself is no image for it (bands); else None.
    """

    source: str | MemoryImage
    view: View
    pixels: Pixels | None = field(default=None, repr=False)

    def image(self, size: tuple[int, int]) -> Pixels:
        """Return the upright image, uint8 (H, W, 3), at this height and width.

        Raises:
            DataError: It cannot be read any more.
        """
        if self.pixels is not None:
            rows = np.arange(size[0]) * self.pixels.shape[0] // size[0]
            columns = np.arange(size[1]) * self.pixels.shape[1] // size[1]
            shown: Pixels = self.pixels[rows][:, columns]
            return shown
        data = read_source(self.source)
        image = data if isinstance(data, str) else decode_or_reason(data, PixelProgram(size))
        if isinstance(image, str):
            raise DataError(f"{str(self.source)!r} cannot be read any more: it {image}.")
        return image


def seen_in(batch: DecodedBatch, sources: Iterator[str | MemoryImage], program: PixelProgram) -> list[Seen | None]:
    """Return what was seen of each image of a batch; None where it cannot be read.

    Args:
        batch: The decoded images.
        sources: Where they come from; as many are taken.
        program: That decoded them.
    """
    return [
        None if reason else _seen(next_source, pixels, program)
        for reason, pixels, next_source in zip(batch.reasons, batch.images, sources, strict=False)
    ]


def _seen(source: str | MemoryImage, pixels: Pixels, program: PixelProgram) -> Seen:
    data = read_source(source)
    size = data if program.bands or isinstance(data, str) else upright_size(data)
    if isinstance(size, tuple):
        return Seen(source, view_of(program, size))
    places = [0, 1, 2] if pixels.shape[2] >= 3 else [0, 0, 0]
    return Seen(source, View(program.size, 0.0, 0.0, program.size[1], program.size[0]), pixels[:, :, places])
