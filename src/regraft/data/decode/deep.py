"""Images whose numbers have more than 8 bits, as bytes: one rule, a function of the file alone.

Whole numbers of up to 16 bits keep their high 8 bits, as Pillow's reader of 16-bit colours does. Floating-point numbers
are read by the first of these ranges that holds them all: 0 to 1, 0 to 255, 0 to 65535. Training, prediction and every
export see the same bytes.
"""

from __future__ import annotations

import importlib
import io

import numpy as np
import numpy.typing as npt

from regraft.data.decode.sniff import RefusedError

__all__ = ["bytes_of", "read_deep"]

Pixels = npt.NDArray[np.uint8]

_RANGES = (1.0, 255.0, 65535.0)
_SLACK = 1e-3  # of a range: what interpolation leaves beyond its ends
_LARGEST = 1 << 31  # bytes of the numbers of one image


def bytes_of(numbers: npt.NDArray[np.generic]) -> Pixels:
    """Return numbers of an image as uint8.

    Raises:
        RefusedError: No black and no white is stated for such numbers.
    """
    if numbers.dtype == np.uint8:
        return np.asarray(numbers, np.uint8)
    if numbers.dtype in (np.uint16, np.int16):
        if numbers.size and np.asarray(numbers).min() < 0:
            raise RefusedError("holds negative numbers, for which no black and no white is stated")
        return (np.asarray(numbers).astype(np.uint16) >> 8).astype(np.uint8)
    if numbers.dtype.kind != "f":
        raise RefusedError(f"holds {8 * numbers.dtype.itemsize}-bit numbers, for which no black and no white is stated")
    return _from_floats(np.asarray(numbers, np.float64))


def _from_floats(numbers: npt.NDArray[np.float64]) -> Pixels:
    low, high = (float(numbers.min()), float(numbers.max())) if numbers.size else (0.0, 0.0)
    white = next((white for white in _RANGES if high <= white * (1 + _SLACK)), None)
    if not np.isfinite([low, high]).all():
        raise RefusedError("holds floating-point numbers that are not finite")
    if white is None or low < -_SLACK * white:
        raise RefusedError(
            f"holds floating-point numbers from {low:g} to {high:g}, and no black and white is stated; regraft reads 0 "
            "to 1, 0 to 255 and 0 to 65535"
        )
    return (np.clip(numbers / white, 0, 1) * 255 + 0.5).astype(np.uint8)


def read_deep(data: bytes, most_pixels: int) -> Pixels:
    """Return the first image of a TIFF that Pillow does not read, uint8 (H, W, bands), not turned.

    Raises:
        RefusedError: tifffile is not installed, or it cannot read the file either.
    """
    try:
        tifffile = importlib.import_module("tifffile")
    except ImportError:
        raise RefusedError(
            "is a TIFF of deep numbers or many bands, which needs a plug-in: pip install 'regraft[tiff]'"
        ) from None
    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            page = file.pages[0]
            height, width = page.imagelength, page.imagewidth
            if height * width > most_pixels or page.size * page.dtype.itemsize > _LARGEST:
                raise RefusedError(f"has {width} x {height} pixels, more than the limit")
            axes, numbers = page.axes, page.asarray()
            inverted = page.photometric == 0
    except RefusedError:
        raise
    except Exception as error:  # a hostile file can raise anything inside a decoder
        raise RefusedError(f"is a TIFF that cannot be read ({' '.join(str(error).split())[:120]})") from None
    if axes not in ("YX", "YXS", "SYX"):
        raise RefusedError(f"is a TIFF of the axes {axes}, which is not one image")
    if axes == "SYX":
        numbers = np.moveaxis(numbers, 0, 2)
    pixels = bytes_of(numbers.reshape(height, width, -1))
    return 255 - pixels if inverted else pixels
