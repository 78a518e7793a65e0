"""What is wrong with single images: unreadable, blank, dark, blurred, of an odd size, cut by the resize."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from regraft.checkup.issue import Issue, Level
from regraft.checkup.rows import Rows
from regraft.checkup.survey import Survey
from regraft.data.decode.decode import PixelProgram
from regraft.wording import percent, quantity

__all__ = ["image_faults"]

# No image of the training split of a catalogue of 3,068 phone photos reaches any of these.
_BLANK = 4.0  # standard deviation of the brightness, of 0 to 255
_DARK = 70.0  # brightness that 95 % of the pixels are below
_BRIGHT = 200.0  # brightness that 95 % of the pixels are above
_BLURRED = 0.09  # of the contrast, crossed by the sharpest edges from a pixel to the next at 256 pixels

_ELONGATED = 3.0  # longer side by the shorter one
_ODD_AREA = 16.0  # times larger or smaller than the median image
_LOST = 0.25  # of an image, cut away
_STRETCHED = 2.0  # times, along one side

Masked = npt.NDArray[np.bool_]


def image_faults(rows: Rows, seen: Survey, program: PixelProgram) -> Iterator[Issue]:
    """Yield what is wrong with single images.

    Args:
        rows: The images.
        seen: What the pass over their files found.
        program: How they come to the network's size.
    """
    if seen.reasons:
        unreadable = sorted(seen.reasons)
        yield Issue(
            "unreadable",
            "Unreadable files",
            "warning",
            f"{quantity(len(unreadable), 'file cannot be read', 'files cannot be read')}; training leaves them out.",
            rows.items(unreadable, [seen.reasons[row] for row in unreadable]),
        )
    if not len(seen.good):
        return
    finder = _Finder(rows, seen)
    yield from _looks(finder)
    yield from _sizes(finder, program)
    yield from _modes(finder)
    yield from _turned(finder)
    yield from _cut(finder, program)


class _Finder:
    """The measures of the readable images."""

    def __init__(self, rows: Rows, seen: Survey) -> None:
        self.rows, self.good = rows, seen.good
        self.measures = seen.measures[self.good]
        self.modes = np.array([seen.modes[row] for row in self.good.tolist()])

    def issue(
        self, kind: str, title: str, level: Level, text: str, found: Masked, detail: Callable[[int], str]
    ) -> Iterator[Issue]:
        """Yield an issue of the images that were found, where there is one; `{}` in its text is their number."""
        places = np.flatnonzero(found).tolist()
        if places:
            items = self.rows.items(self.good[places].tolist(), [detail(place) for place in places])
            yield Issue(kind, title, level, text.format(quantity(len(places), "image")), items)


def _looks(finder: _Finder) -> Iterator[Issue]:
    found = finder.measures
    blank = found["spread"] < _BLANK
    dark, bright = ~blank & (found["high"] < _DARK), ~blank & (found["low"] > _BRIGHT)
    blurred = ~blank & (found["sharpness"] < _BLURRED)
    yield from finder.issue(
        *("blank", "Blank images", "warning", "{} of a single colour: nothing to learn from.", blank),
        lambda place: f"brightness {found['middle'][place]:.0f} of 255",
    )
    yield from finder.issue(
        *("dark", "Dark images", "note", "{} darker than nearly all photographs.", dark),
        lambda place: f"95 % of its pixels are below {found['high'][place]:.0f} of 255",
    )
    yield from finder.issue(
        *("overexposed", "Overexposed images", "note", "{} brighter than nearly all photographs.", bright),
        lambda place: f"95 % of its pixels are above {found['low'][place]:.0f} of 255",
    )
    yield from finder.issue(
        *("blurred", "Blurred images", "note", "{} without a sharp edge at 256 pixels.", blurred),
        lambda place: f"its sharpest edges cross {percent(found['sharpness'][place], 0)} of the contrast in a pixel",
    )


def _sizes(finder: _Finder, program: PixelProgram) -> Iterator[Issue]:
    found = finder.measures
    width, height = found["width"].astype(np.float64), found["height"].astype(np.float64)

    def size(place: int) -> str:
        return f"{found['width'][place]} x {found['height'][place]} pixels"

    enlarged = np.maximum(program.size[1] / width, program.size[0] / height)
    text = f"{{}} less than half as large as the {program.size[1]} x {program.size[0]} pixels that the network takes."
    yield from finder.issue("small", "Small images", "note", text, enlarged > 2, size)
    ratio = width * height / np.median(width * height)
    odd = ((ratio > _ODD_AREA) | (ratio < 1 / _ODD_AREA)) & (enlarged <= 2)
    text = f"{{}} more than {_ODD_AREA:.0f} times larger or smaller than the median image."
    yield from finder.issue("odd-size", "Odd sizes", "note", text, odd, size)
    aspect = np.maximum(width / height, height / width)
    text = f"{{}} more than {_ELONGATED:.0f} times as long as wide."
    yield from finder.issue("odd-aspect", "Odd aspect ratios", "note", text, aspect > _ELONGATED, size)


def _modes(finder: _Finder) -> Iterator[Issue]:
    counts = Counter(finder.modes.tolist())
    if len(counts) > 1:
        (first, _), *_ = counts.most_common()
        shown = ", ".join(f"{count:,} x {mode}" for mode, count in counts.most_common())
        text = f"{{}} stored in other colour modes than most ({shown}); all are read as RGB."
        yield from finder.issue(
            *("colour-mode", "Mixed colour modes", "note", text, finder.modes != first),
            lambda place: str(finder.modes[place]),
        )
    depths = Counter(finder.measures["depth"].tolist())
    if set(depths) != {8}:
        yield from finder.issue(
            *("bit-depth", "Odd bit depths", "note", "{} of other than 8 bits; all are read as 8."),
            finder.measures["depth"] != 8,
            lambda place: quantity(int(finder.measures["depth"][place]), "bit"),
        )


def _turned(finder: _Finder) -> Iterator[Issue]:
    turned = finder.measures["orientation"] > 1
    if turned.all():
        return
    text = "{} turned by an EXIF tag, beside others that are not. regraft turns them upright; other programs may not."
    yield from finder.issue(
        *("exif-rotated", "Images turned by EXIF", "note", text, turned),
        lambda place: f"EXIF orientation {finder.measures['orientation'][place]}",
    )


def _cut(finder: _Finder, program: PixelProgram) -> Iterator[Issue]:
    """Yield which images the resize cuts, or distorts, the most."""
    aspect = finder.measures["width"] / finder.measures["height"].astype(np.float64)
    change = np.maximum(aspect * program.size[0] / program.size[1], program.size[1] / program.size[0] / aspect)
    if program.resize == "crop":
        lost = _lost_share(aspect, program)
        text = f"{{}} of which `resize: crop` cuts away more than {_LOST:.0%} (median of all: {np.median(lost):.0%})."
        yield from finder.issue(
            *("cut", "Cut by the resize", "note", text, lost > _LOST),
            lambda place: f"{percent(lost[place], 0)} is cut away",
        )
    elif program.resize == "squash":
        text = f"{{}} stretched by `resize: squash` more than {_STRETCHED:.0f} times along one side (median of all: "
        text += f"{np.median(change):.2f} times)."
        yield from finder.issue(
            *("stretched", "Stretched by the resize", "note", text, change > _STRETCHED),
            lambda place: f"stretched {change[place]:.1f} times",
        )
    else:
        text = f"{{}} that fill less than half of the input with `resize: pad` (median of all: {np.median(change):.2f} "
        text += "times as long as the input)."
        yield from finder.issue(
            *("padded", "Mostly padding", "note", text, change > _STRETCHED),
            lambda place: f"fills {percent(1 / change[place], 0)} of the input",
        )


def _lost_share(aspect: npt.NDArray[np.float64], program: PixelProgram) -> npt.NDArray[np.float64]:
    """Return the share of each image that `crop` cuts away.

    Args:
        aspect: Width by height of each.
        program: Whose size and kept fraction count.
    """
    height, width = program.size
    relative = aspect * height / width  # to the input's
    across = np.minimum(1.0, program.crop_fraction * np.minimum(1.0, 1 / relative))
    down = np.minimum(1.0, program.crop_fraction * np.minimum(1.0, relative))
    return np.asarray(1 - across * down)
