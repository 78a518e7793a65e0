"""Heat as colours over an image, for every eye: a perceptually uniform scale, the more opaque the hotter."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from regraft.data.sources.masks.not_inputs import OWN_COMMENT

__all__ = ["as_png", "heat_colours", "overlaid"]

Pixels = npt.NDArray[np.uint8]
Heat = npt.NDArray[np.floating]
# Ten colours of `plasma` (van der Walt and Smith 2015, CC0): equal steps look equally large, lightness grows all the
# way, so that it reads in grey and for people who confuse red and green.
_STOPS = "0d0887 46039f 7201a8 9c179e bd3786 d8576b ed7953 fb9f3a fdca26 f0f921"
_TABLE = np.array([list(bytes.fromhex(stop)) for stop in _STOPS.split()], dtype=np.float64)
_OPAQUE = 0.6  # where it is hottest
_LUMA = np.array([0.299, 0.587, 0.114])
_UNSEEN = 0.35  # brightness of what the network did not see


def heat_colours(heat: Heat) -> npt.NDArray[np.float64]:
    """Return the colour of each value from 0 to 1, red, green and blue from 0 to 255."""
    places = _bounded(heat) * (len(_TABLE) - 1)
    low = np.minimum(places.astype(np.int64), len(_TABLE) - 2)
    share = (places - low)[..., None]
    mixed: npt.NDArray[np.float64] = _TABLE[low] * (1 - share) + _TABLE[low + 1] * share
    return mixed


def _bounded(heat: Heat) -> Heat:
    """Return heat from 0 to 1; none where a network's overflow left a value that is not a number."""
    return np.nan_to_num(np.clip(heat, 0, 1))


def overlaid(image: Pixels, heat: Heat, seen: npt.NDArray[np.bool_] | None = None) -> Pixels:
    """Return the image in grey with the heat over it; darker where the network did not look.

    Args:
        image: uint8 (H, W, 3).
        heat: From 0 to 1, (H, W).
        seen: Which pixels it saw, (H, W); None for all.
    """
    grey = (image @ _LUMA)[..., None]
    if seen is not None:
        grey = np.where(seen[..., None], grey, grey * _UNSEEN)
    opaque = _OPAQUE * _bounded(heat)[..., None]
    mixed = grey * (1 - opaque) + heat_colours(heat) * opaque
    drawn: Pixels = mixed.round().astype(np.uint8)
    return drawn


def as_png(pixels: Pixels) -> bytes:
    """Return uint8 (H, W, 3) as a PNG file that says who wrote it: folders that are read leave such files out."""
    note, stream = PngInfo(), io.BytesIO()
    note.add_text("Comment", OWN_COMMENT)
    Image.fromarray(pixels).save(stream, "PNG", compress_level=1, pnginfo=note)
    return stream.getvalue()
