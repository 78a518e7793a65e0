"""One pass over the files of a data set: what each is, how it looks, and a thumbnail to compare it by."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

from regraft.checkup.copies.thumbnails import Thumbnails, thumbnail_of
from regraft.data.decode.bands import flatten
from regraft.data.decode.image_file import exif_orientation, opened_or_reason, read_file, turned
from regraft.machine.budget import num_cpus
from regraft.machine.prefetch import in_order

__all__ = ["Survey", "survey"]

Progress = Callable[[int, int], None]
Pixels = npt.NDArray[np.uint8]
Counts = npt.NDArray[np.integer[Any]] | npt.NDArray[np.float64]

_SIDE = 256  # the longer side at which images are measured, so that their sizes do not matter
_CHUNK = 16
_STEEP = 0.995  # the share of steps between neighbouring pixels that sharp edges are steeper than
_WHITE = (255, 255, 255)
_DEPTHS = {"1": 1, "I": 32, "F": 32}
_FIELDS = [
    *(("width", "<i4"), ("height", "<i4"), ("depth", "<i4"), ("orientation", "<i4")),
    *(("low", "<f4"), ("middle", "<f4"), ("high", "<f4"), ("spread", "<f4"), ("sharpness", "<f4")),
]


class Survey(NamedTuple):
    """What a pass over files found, a row for each.

    Attributes:
        measures: A structured array: `width` and `height` upright, in pixels; `depth`, the bits of a number;
            `orientation`, the EXIF tag, from 1 (upright) to 8; `low`, `middle` and `high`, the brightness of the 5th,
            50th and 95th percentile of pixels, from 0 to 255; `spread`, the brightness' standard deviation;
            `sharpness`, how abruptly the sharpest edges change, relative to the contrast.
        modes: How each file stores its colours, as Pillow names it, such as RGB, L or CMYK.
        thumbnails: Of each image as it is, and behind these of those that have a frame without it.
        digests: A hash of what each image shows: the same for files with the same pixels.
        reasons: Why a file has no such row, by row.
    """

    measures: npt.NDArray[np.void]
    modes: list[str]
    thumbnails: Thumbnails
    digests: list[bytes]
    reasons: dict[int, str]

    @property
    def good(self) -> npt.NDArray[np.int64]:
        """The rows of the files that can be read."""
        return np.setdiff1d(np.arange(len(self.modes)), np.array(list(self.reasons), dtype=np.int64))


class _Look(NamedTuple):
    measures: tuple[float, ...]
    mode: str
    thumbnail: tuple[Pixels, Pixels | None]
    digest: bytes


def survey(
    paths: Sequence[str], *, threads: int | None = None, progress: Progress = lambda done, total: None
) -> Survey:
    """Read and decode each file once, to its last byte.

    Args:
        paths: Image files.
        threads: Threads that decode; None takes one for each processor.
        progress: Called with (files done, files in all).
    """
    num = len(paths)
    found = Survey(np.zeros(num, dtype=_FIELDS), [""] * num, Thumbnails(num), [b""] * num, {})

    def work(rows: range) -> list[_Look | str]:
        return [_look(paths[row]) for row in rows]

    parts = (range(start, min(start + _CHUNK, len(paths))) for start in range(0, len(paths), _CHUNK))
    done = 0
    for looks in in_order(work, parts, threads or num_cpus()):
        for row, look in enumerate(looks, start=done):
            if isinstance(look, str):
                found.reasons[row] = look
                continue
            found.measures[row] = look.measures
            found.modes[row], found.digests[row] = look.mode, look.digest
            found.thumbnails.keep(row, *look.thumbnail)
        done += len(looks)
        progress(done, len(paths))
    return found


def _look(path: str) -> _Look | str:
    data = read_file(path)
    return data if isinstance(data, str) else opened_or_reason(data, _seen, deep=True)


def _seen(image: Image.Image) -> _Look:
    mode = image.mode
    is_jpeg = image.format in ("JPEG", "MPO")
    orientation = exif_orientation(image) if is_jpeg else None
    size = image.size
    if is_jpeg:
        scale = min(1.0, _SIDE / max(size))
        image.draft(None, (max(1, round(size[0] * scale)), max(1, round(size[1] * scale))))
    image.load()
    orientation = orientation or exif_orientation(image)  # a PNG may hold it behind the pixels
    width, height = image.size if not is_jpeg else size
    if orientation >= 5:
        width, height = height, width
    small = _reduced(turned(flatten(image, _WHITE), orientation))
    grey = small.convert("L")
    counts = np.array(grey.histogram(), dtype=np.float64)
    low, middle, high = (_quantile(counts, share) for share in (0.05, 0.5, 0.95))
    spread = float(np.asarray(grey).std())
    depth = 16 if mode.startswith("I;16") else _DEPTHS.get(mode, 8)
    measures = (width, height, depth, orientation, low, middle, high, spread, _sharpness(grey, counts))
    digest = hashlib.blake2b(f"{width} {height} ".encode() + small.tobytes(), digest_size=16).digest()
    return _Look(measures, mode, thumbnail_of(grey), digest)


def _reduced(image: Image.Image) -> Image.Image:
    scale = _SIDE / max(image.size)
    if scale >= 1:
        return image
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, Image.Resampling.BILINEAR, reducing_gap=2.0)


def _sharpness(image: Image.Image, counts: Counts) -> float:
    """Return how much of an image's contrast its sharpest edges cross from one pixel to the next."""
    if min(image.size) < 3:
        return 1.0
    grey = np.asarray(image, dtype=np.int16)
    across, down = np.abs(grey[:, 1:] - grey[:, :-1]), np.abs(grey[1:] - grey[:-1])
    steepest = max(_quantile(np.bincount(steps.ravel(), minlength=256), _STEEP) for steps in (across, down))
    contrast = _quantile(counts, 0.99) - _quantile(counts, 0.01)
    return steepest / contrast if contrast >= 1 else 0.0


def _quantile(counts: Counts, share: float) -> int:
    """Return the least value that so large a share of all values does not exceed, from how often each occurs."""
    sums = np.cumsum(counts)
    return int(np.searchsorted(sums, share * sums[-1]))
