"""Which pixel values or colours of a mask stand for which class, and which for none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from regraft.errors import DataError

__all__ = ["IGNORED", "MOST_CLASSES", "UNKNOWN", "ClassTable", "Coding", "Colour", "default_colours", "pack", "unpack"]

Colour = tuple[int, int, int]
Coding = Literal["index", "colour"]
Mask = npt.NDArray[np.uint8]

IGNORED = 255  # in every mask that regraft has read: pixels that count for nothing
UNKNOWN = 254  # while a mask is read: pixels that the table does not know
MOST_CLASSES = 254
_MOST_VALUES = 1 << 16


@dataclass(frozen=True)
class ClassTable:
    """The classes of masks.

    Attributes:
        names: The class names; a pixel's class is a position among them.
        colours: Red, green, blue of each class, for drawing.
        coding: Whether masks hold numbers (grey or palette) or colours.
        codes: What stands in the files, a number or a colour as 0xRRGGBB -> the position of its class, or 255 for
            pixels that are ignored.
    """

    names: tuple[str, ...]
    colours: tuple[Colour, ...]
    coding: Coding
    codes: Mapping[int, int]

    @property
    def ignored(self) -> tuple[int, ...]:
        """The numbers or packed colours that are ignored."""
        return tuple(code for code, place in sorted(self.codes.items()) if place == IGNORED)

    @property
    def palette(self) -> Mask:
        """Red, green, blue of each value of a mask that regraft has read, uint8 (256, 3); what is ignored is black."""
        colours = np.zeros((256, 3), dtype=np.uint8)
        colours[: len(self.colours)] = np.array(self.colours, dtype=np.uint8).reshape(-1, 3)
        return colours

    @cached_property
    def _places(self) -> Mask:
        places = np.full(_MOST_VALUES if self.coding == "index" else 1 << 24, UNKNOWN, dtype=np.uint8)
        for code, place in self.codes.items():
            places[code] = place
        return places

    def positions(self, codes: npt.NDArray[np.integer]) -> Mask:
        """Return the class position of each mask value, uint8 of the same shape; 255 ignored, 254 not in the table."""
        places: Mask = self._places[codes]
        return places

    def describe(self, code: int) -> str:
        """Return a number or a colour as the table's file would write it."""
        return str(code) if self.coding == "index" else "({}, {}, {})".format(*unpack(code))

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for JSON; `from_dict` gives an equal table back."""
        return {
            "names": list(self.names),
            "colours": [list(colour) for colour in self.colours],
            "coding": self.coding,
            "codes": [
                [code if self.coding == "index" else list(unpack(code)), None if place == IGNORED else place]
                for code, place in sorted(self.codes.items())
            ],
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> ClassTable:
        """Return the table that `to_dict` wrote.

        Raises:
            DataError: The fields are not those of a table.
        """
        try:
            coding: Coding = {"index": "index", "colour": "colour"}[fields["coding"]]  # type: ignore[assignment]
            codes = {
                int(code) if coding == "index" else pack(code): IGNORED if place is None else int(place)
                for code, place in fields["codes"]
            }
            names = tuple(str(name) for name in fields["names"])
            colours = tuple((int(red), int(green), int(blue)) for red, green, blue in fields["colours"])
            if len(names) != len(colours) or not all(p == IGNORED or 0 <= p < len(names) for p in codes.values()):
                raise ValueError("names, colours and codes do not fit together")
            return cls(names, colours, coding, codes)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise DataError(
                f"A stored class table cannot be read ({type(error).__name__}: {error}).",
                "it has the fields that regraft writes to splits.json: names, colours, coding and codes",
                "restore splits.json, or start a new run",
            ) from error


def pack(colour: Sequence[int]) -> int:
    """Return a colour as one number, 0xRRGGBB."""
    red, green, blue = (int(value) for value in colour)
    if not all(0 <= value <= 255 for value in (red, green, blue)):
        raise ValueError(f"{tuple(colour)} is not a colour: red, green and blue go from 0 to 255")
    return red << 16 | green << 8 | blue


def unpack(code: int) -> Colour:
    """Return the colour (red, green, blue) of a packed number: the inverse of `pack`."""
    return code >> 16, code >> 8 & 255, code & 255


def default_colours(names: Sequence[str]) -> tuple[Colour, ...]:
    """Return clearly distinct colours, as PASCAL VOC has them: the bits of a number, spread over three channels.

    Source: the function `VOClabelcolormap` of the PASCAL VOC development kit.
    """
    start = 0 if names and names[0].lower() in ("background", "bg") else 1  # the first colour is black
    return tuple(_voc_colour(start + place) for place in range(len(names)))


def _voc_colour(number: int) -> Colour:
    red = green = blue = 0
    for shift in range(7, -1, -1):
        red |= (number & 1) << shift
        green |= (number >> 1 & 1) << shift
        blue |= (number >> 2 & 1) << shift
        number >>= 3
    return red, green, blue
