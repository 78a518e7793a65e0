"""Objects as label tools store them beside polygons: CVAT's runs in a box, LabelMe's small images, brushes."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from regraft.data.decode.image_file import opened_or_reason
from regraft.data.decode.sniff import RefusedError

__all__ = ["FORMS", "drawn_form"]

FORMS = ("runs", "png", "brush")  # one of these keys says which form an object has

Area = npt.NDArray[np.bool_]


def drawn_form(form: Mapping[str, Any], height: int, width: int) -> Area:
    """Return the pixels of one object, bool (H, W).

    Raises:
        RefusedError: It is none that can be drawn, and why.
    """
    if "runs" in form:
        left, top, wide, high = form["box"]
        return _placed(_from_runs(form["runs"], wide, high), left, top, height, width)
    if "png" in form:
        left, top = form["at"]
        return _placed(_from_png(form["png"]), left, top, height, width)
    if list(form["size"]) != [height, width]:
        raise RefusedError(f"has a brush for {form['size']} in an image of {[height, width]}")
    return _from_brush(form["brush"], height, width)


def _placed(area: Area, left: int, top: int, height: int, width: int) -> Area:
    """Return the part of an area that lies in an image, where its left upper corner is at (left, top)."""
    whole = np.zeros((height, width), dtype=bool)
    inside = area[max(0, -top) : max(0, height - top), max(0, -left) : max(0, width - left)]
    whole[max(0, top) : max(0, top) + inside.shape[0], max(0, left) : max(0, left) + inside.shape[1]] = inside
    return whole


def _from_runs(runs: Any, wide: int, high: int) -> Area:
    """Return lengths of runs of 0 and 1 in turn, along the rows of a box."""
    lengths = np.array(runs, dtype=np.int64)
    if wide < 1 or high < 1 or lengths.ndim != 1 or (lengths < 0).any() or lengths.sum() != wide * high:
        raise RefusedError(f"has run lengths that do not add up to a box of {wide} x {high} pixels")
    area: Area = np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape(high, wide)
    return area


def _from_png(text: str) -> Area:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise RefusedError("has an object whose mask is not base64") from None
    found = opened_or_reason(data, lambda image: np.asarray(image.convert("L")) > 0)
    if isinstance(found, str):
        raise RefusedError(f"has an object whose mask {found}")
    return found


class _Bits:
    """A stream of bits, the highest of each byte first."""

    def __init__(self, data: bytes) -> None:
        self._bits = np.unpackbits(np.frombuffer(data, dtype=np.uint8))
        self._place = 0

    def take(self, num: int) -> npt.NDArray[np.uint8]:
        bits = self._bits[self._place : self._place + num]
        if len(bits) < num:
            raise RefusedError("has a brush that is cut off")
        self._place += num
        return bits

    def number(self, num: int) -> int:
        value = 0
        for bit in self.take(num).tolist():
            value = value * 2 + bit
        return value


def _from_brush(data: Any, height: int, width: int) -> Area:
    """Return what a brush of Label Studio has painted: the alpha channel of a packed image of four channels.

    Packed as by @thi.ng/rle-pack: a head of 32 bits for the number of values, 5 for their width, and 4 times 4 for
    those of lengths; then blocks of one value repeated, or of as many values as a length says.
    """
    bits = _Bits(bytes(data))
    num, word = bits.number(32), bits.number(5) + 1
    if num != 4 * height * width or word > 8:
        raise RefusedError(f"has a brush of {num} values of {word} bits for {height * width} pixels")
    widths = [bits.number(4) + 1 for _ in range(4)]
    values = np.zeros(num, dtype=np.uint8)
    place = 0
    while place < num:
        is_repeated = bits.number(1)
        end = place + 1 + bits.number(widths[bits.number(2)])
        if end > num:
            raise RefusedError("has a brush with more values than it says")
        if is_repeated:
            values[place:end] = bits.number(word)
        else:
            each = bits.take(word * (end - place)).reshape(end - place, word)
            values[place:end] = each @ (1 << np.arange(word - 1, -1, -1))
        place = end
    area: Area = values.reshape(height, width, 4)[..., 3] > 0
    return area
