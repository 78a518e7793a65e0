"""TIFF files of any number of bands, of 8 bits each: what Pillow reads up to four of."""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from regraft.data.decode.sniff import RefusedError

__all__ = ["bit_depths", "is_plain", "num_bands", "orientation_of", "read_planes", "read_tags"]

Pixels = npt.NDArray[np.uint8]
Tags = dict[int, Any]

_DEFLATE = (8, 32946)  # TIFF Technical Note 2, and the number before it; all others from TIFF 6.0
_LARGEST = 1 << 30  # bytes of an image, or of one of its strips or tiles


@dataclass(frozen=True)
class _Layout:
    """Height, width and bands of the whole, and of one strip or tile; planes are 1, or one for each band."""

    height: int
    width: int
    num_bands: int
    block: tuple[int, int]
    num_planes: int
    clipped: bool  # the last strip is as high as the image has rows left; tiles are whole

    @property
    def depth(self) -> int:
        """Bands in one strip or tile."""
        return self.num_bands // self.num_planes

    def blocks(self) -> Iterator[tuple[int, int, int]]:
        """Return first band, row and column of each strip or tile, in the order of the file."""
        for plane in range(self.num_planes):
            for top in range(0, self.height, self.block[0]):
                for left in range(0, self.width, self.block[1]):
                    yield plane * self.depth, top, left


def read_tags(data: bytes) -> Tags:
    """Return the tags of a TIFF's first image, by number (TIFF 6.0 section 8)."""
    directory = ImageFileDirectory_v2(data[: 16 if data[2:3] == b"+" else 8])
    file = io.BytesIO(data)
    file.seek(directory.next)
    directory.load(file)
    return dict(directory)


def num_bands(tags: Tags) -> int:
    """Return the number of bands (samples per pixel)."""
    return _whole(tags.get(277, 1))


def bit_depths(tags: Tags) -> tuple[int, ...]:
    """Return bits of the numbers of each band."""
    return tuple(int(bits) for bits in _wholes(tags.get(258, (1,)))) or (1,)


def is_plain(tags: Tags) -> bool:
    """Return whether `read_planes` reads files of this kind: whole numbers of 8 bits, not compressed or deflated."""
    kinds = set(_wholes(tags.get(339, (1,))))
    return set(bit_depths(tags)) == {8} and kinds <= {1} and _whole(tags.get(259, 1)) in (1, *_DEFLATE)


def orientation_of(tags: Tags) -> int:
    """Return the EXIF orientation of the image, 1 to 8."""
    value = tags.get(274, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def read_planes(data: bytes, tags: Tags, most_pixels: int) -> Pixels:
    """Return the bands of the first image, uint8 (H, W, bands), not turned.

    Raises:
        RefusedError: It is compressed, or its numbers are stored, in a way that is not read, or it is cut off.
    """
    layout = _layout(tags, most_pixels)
    compression, predicted = _whole(tags.get(259, 1)), _whole(tags.get(317, 1)) == 2
    offsets, sizes = (_wholes(tags.get(tag) or tags.get(strips, ())) for tag, strips in ((324, 273), (325, 279)))
    planes = np.zeros((layout.height, layout.width, layout.num_bands), dtype=np.uint8)
    blocks = list(layout.blocks())
    if not len(blocks) <= min(len(offsets), len(sizes)):
        raise RefusedError("is cut off")
    for (band, top, left), offset, size in zip(blocks, offsets, sizes, strict=False):
        rows = min(layout.block[0], layout.height - top) if layout.clipped else layout.block[0]
        shape = (rows, layout.block[1], layout.depth)
        block = _decompressed(data[offset : offset + size], compression, math.prod(shape)).reshape(shape)
        if predicted:
            block = np.add.accumulate(block, axis=1, dtype=np.uint8)
        target = planes[top : top + rows, left : left + shape[1], band : band + layout.depth]
        target[...] = block[: target.shape[0], : target.shape[1]]
    return planes


def _layout(tags: Tags, most_pixels: int) -> _Layout:
    width, height, bands = _whole(tags.get(256)), _whole(tags.get(257)), num_bands(tags)
    if width * height > most_pixels:
        raise RefusedError(f"has {width} x {height} pixels, more than the limit of {most_pixels / 1e6:.0f} megapixels")
    _require_bytes(tags, bands)
    tiled = 322 in tags
    block = (_whole(tags.get(323)), _whole(tags.get(322))) if tiled else (_whole(tags.get(278, height)), width)
    block = (block[0] if tiled else min(block[0], height), block[1])
    planes = bands if _whole(tags.get(284, 1)) == 2 else 1
    if min(width, height, bands, *block) < 1 or max(width * height * bands, math.prod(block) * bands) > _LARGEST:
        raise RefusedError(f"has {width} x {height} pixels of {bands} bands, in parts of {block[1]} x {block[0]}")
    return _Layout(height, width, bands, block, planes, clipped=not tiled)


def _require_bytes(tags: Tags, bands: int) -> None:
    bits, kinds = set(_wholes(tags.get(258, (1,)))), set(_wholes(tags.get(339, (1,))))
    if bits != {8} or not kinds <= {1}:
        raise RefusedError(
            f"holds {bands} bands of {', '.join(map(str, sorted(bits)))} bits, and regraft reads more than four bands, "
            "or bands without colours, of 8 bits alone (convert them: gdal_translate -ot Byte -scale LOW HIGH)"
        )
    if _whole(tags.get(262, 1)) not in (1, 2):
        raise RefusedError(
            f"holds colours of kind {tags.get(262)}, of which regraft reads grey and RGB with more bands"
        )


def _decompressed(part: bytes, compression: int, num_bytes: int) -> Pixels:
    if compression in _DEFLATE:
        part = zlib.decompressobj().decompress(part, num_bytes)
    elif compression != 1:
        raise RefusedError(
            f"is compressed in the way {compression}, and regraft reads many bands uncompressed or deflated "
            "(convert them: gdal_translate -co COMPRESS=DEFLATE)"
        )
    if len(part) < num_bytes:
        raise RefusedError("is cut off")
    return np.frombuffer(part, dtype=np.uint8, count=num_bytes)


def _wholes(values: Any) -> tuple[int, ...]:
    return tuple(values) if isinstance(values, tuple) else (values,)


def _whole(value: Any) -> int:
    value = value[0] if isinstance(value, tuple) and value else value
    if not isinstance(value, int) or value < 0:
        raise RefusedError("is damaged (a tag of the TIFF is missing or no number)")
    return value
