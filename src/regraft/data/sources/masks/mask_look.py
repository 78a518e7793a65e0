"""What stands in the masks of a data set, counted over some of them: values, colours, and values that were blended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from regraft.data.class_table import IGNORED, Coding
from regraft.data.masks.masks import codes_or_reason, fetch_mask
from regraft.machine.budget import num_cpus
from regraft.machine.prefetch import in_order
from regraft.wording import quantity

__all__ = ["FEW_MASKS", "MANY_MASKS", "TOLERATED", "Blends", "Look", "blends_in", "look_at"]

FEW_MASKS, MANY_MASKS = 100, 2000  # that are looked at where there is a list of classes, and where there is none
TOLERATED = 0.1  # share of masks with values that the table does not have; these are left out when they are read
_LARGEST_LABEL = 32  # numbers up to here are numbers of classes, however few pixels they have
_SOLID = 0.05  # of the pixels of a value lie in an area of its own; those of a blend lie on a border


@dataclass
class Look:
    """What stands in some of the masks.

    Attributes:
        codings: How many masks hold numbers, and colours.
        codes: Number of masks for each number or packed colour, in the coding that most masks have.
        colours: The same, with everything read as colours.
        pixels: Number of pixels for each number, of masks that hold numbers.
        solid: Of these, the ones whose four neighbours hold the same number.
        kinds: How many masks hold each set of numbers out of 0, 1, 255 and "other".
        num: How many masks were read.
        example: A mask for each number or colour.
        warnings: What people should know.
    """

    codings: Counter[Coding] = field(default_factory=Counter)
    codes: Counter[int] = field(default_factory=Counter)
    colours: Counter[int] = field(default_factory=Counter)
    pixels: Counter[int] = field(default_factory=Counter)
    solid: Counter[int] = field(default_factory=Counter)
    kinds: Counter[frozenset[int]] = field(default_factory=Counter)
    num: int = 0
    unread: Counter[str] = field(default_factory=Counter)
    example: dict[int, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def coding(self) -> Coding:
        """What the masks hold: of a set in colours, many may be grey by chance; a few others are strays."""
        return "colour" if self.codings["colour"] > TOLERATED * self.num else "index"

    @property
    def reason(self) -> str:
        """Why masks cannot be read: the most frequent reason, with how many have it."""
        return "; ".join(f"{num:,} of them: {text}" for text, num in self.unread.most_common(1))

    @property
    def is_two_valued(self) -> bool:
        """Whether the masks hold 0 and 255 alone, as black and white images do."""
        return self.coding == "index" and self.codes[IGNORED] > 0 and set(self.codes) <= {0, IGNORED}


@dataclass(frozen=True)
class Blends:
    """Values between two that were blended at borders, by smooth resizing or compression.

    Attributes:
        values: These values.
        high: The larger one of the two; the other is 0.
        share: The share of such pixels in the masks.
        masks: How many masks hold them.
        example: One of these masks.
    """

    values: tuple[int, ...]
    high: int
    share: float
    masks: int
    example: str


@dataclass(frozen=True)
class _Codes:
    """The numbers of one mask with their pixels, or its colours."""

    coding: Coding
    pixels: dict[int, int]
    solid: dict[int, int]
    colours: list[int]


def look_at(masks: Sequence[str], most: int, *, with_colours: bool) -> Look:
    """Count the values in all masks, or in as many of them, evenly chosen.

    Args:
        masks: All mask files.
        most: How many are read at most.
        with_colours: Whether numbers are read as the colours that they are shown in, too.
    """
    look = Look()
    chosen = sorted({round(place) for place in np.linspace(0, len(masks) - 1, min(most, len(masks)))}) if masks else []
    if len(chosen) < len(masks) and most == MANY_MASKS:
        look.warnings.append(f"The classes were taken from {len(chosen):,} of the {quantity(len(masks), 'mask')}.")
    by_number: Counter[int] = Counter()
    for row, found in in_order(lambda row: (row, _codes_in(masks[row], with_colours)), chosen, num_cpus()):
        if isinstance(found, str):
            look.unread[found] += 1
            continue  # it is told, and left out, when all masks are read
        look.num += 1
        look.codings[found.coding] += 1
        by_number.update(found.pixels.keys())
        look.pixels.update(found.pixels)
        look.solid.update(found.solid)
        look.colours.update(found.colours)
        if found.coding == "index":
            look.kinds[frozenset(value if value in (0, 1, IGNORED) else -1 for value in found.pixels)] += 1
        for code in found.colours if found.coding == "colour" else found.pixels:
            look.example.setdefault(code, masks[row])
    look.codes = look.colours if look.coding == "colour" else by_number
    return look


def blends_in(look: Look, known: Sequence[int] = ()) -> Blends | None:
    """Return the blended values of masks that are meant to hold two, 0 and one from 128 on; None where there are none.

    Args:
        look: The masks.
        known: Values that stand for a class.
    """
    high = max(look.pixels, default=0)
    between = {value: num for value, num in look.pixels.items() if 0 < value < high and value not in known}
    if look.coding != "index" or not between or not 128 <= high <= IGNORED or max(between) <= _LARGEST_LABEL:
        return None
    blended, total = sum(between.values()), look.pixels.total()
    solid = sum(look.solid[value] for value in between)
    if max(between.values()) >= min(look.pixels[0], look.pixels[high]) or 2 * blended >= total:
        return None
    if solid > _SOLID * blended:
        return None
    value = max(between, key=lambda value: look.codes[value])
    num = sum(count for kind, count in look.kinds.items() if -1 in kind or 1 in kind)
    return Blends(tuple(sorted(between)), high, blended / total, num, look.example[value])


def _codes_in(path: str, with_colours: bool) -> _Codes | str:
    data = fetch_mask(path)
    found = data if isinstance(data, str) else codes_or_reason(data)
    if isinstance(data, str) or isinstance(found, str):
        return str(found)
    coding, codes = found
    if coding == "colour":
        return _Codes(coding, {}, {}, np.unique(codes).tolist())
    as_colours = codes_or_reason(data, "colour") if with_colours else ""
    colours = [] if isinstance(as_colours, str) else np.unique(as_colours[1]).tolist()
    return _Codes(coding, _counted(codes), _counted(_solid(codes)), colours)


def _counted(codes: npt.NDArray[np.integer]) -> dict[int, int]:
    counts = np.bincount(codes.ravel())
    return {value: int(counts[value]) for value in np.flatnonzero(counts).tolist()}


def _solid(codes: npt.NDArray[np.integer]) -> npt.NDArray[np.integer]:
    """Return the numbers of the pixels whose four neighbours hold the same one."""
    inner = codes[1:-1, 1:-1]
    same = (inner == codes[:-2, 1:-1]) & (inner == codes[2:, 1:-1])
    same &= (inner == codes[1:-1, :-2]) & (inner == codes[1:-1, 2:])
    solid: npt.NDArray[np.integer] = inner[same]
    return solid
