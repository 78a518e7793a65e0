"""The size at which images with masks are looked at, where nobody says one."""

from __future__ import annotations

import math
import statistics

import numpy as np

from regraft.data.dataset import DataSet
from regraft.data.masks.mask_check import upright_size

__all__ = ["default_size"]

_NUM_IMAGES = 100
_SIDE = 416  # of a square of as many pixels as a usual image at most: seconds, not minutes, for a step on a CPU
_STRIDE = 32  # of most encoders: what is no multiple of it is padded


def default_size(data: DataSet) -> tuple[int, int] | None:
    """Return height and width in the proportions of the images, no larger than they are; None for images without masks.

    Args:
        data: Of whose training images the headers of at most 100 are read.
    """
    if not data.segmentation:
        return None
    paths = data.train.paths
    chosen = sorted({round(place) for place in np.linspace(0, len(paths) - 1, min(_NUM_IMAGES, len(paths)))})
    sizes = [size for size in (upright_size(paths[row]) for row in chosen) if size is not None]
    if not sizes:
        return _SIDE, _SIDE
    width, height = (statistics.median(sides) for sides in zip(*sizes, strict=True))
    scale = min(1.0, _SIDE / math.sqrt(height * width))
    return _rounded(height * scale), _rounded(width * scale)


def _rounded(side: float) -> int:
    return max(_STRIDE, round(side / _STRIDE) * _STRIDE)
