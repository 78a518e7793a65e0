"""How good masks are: all follows from one confusion matrix of pixels, and boundary F1 from counts of its own."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from regraft.data.class_table import IGNORED

__all__ = ["BoundaryCounts", "boundary_f1", "mask_confusion", "pixel_metrics"]

Mask = npt.NDArray[np.uint8]
Counts = npt.NDArray[np.int64]
_NEAR = 0.0075  # of the image's diagonal: how far a boundary may be off, as in Matlab's bfscore


def mask_confusion(truth: Mask, predicted: Mask, num_classes: int) -> Counts:
    """Return the confusion matrix of pixels, int64 (C, C): rows are the truth, where 255 is ignored."""
    counted = truth != IGNORED
    pairs = truth[counted].astype(np.int64) * num_classes + predicted[counted]
    return np.bincount(pairs, minlength=num_classes**2).reshape(num_classes, num_classes).astype(np.int64)


def pixel_metrics(counts: Counts, class_names: Sequence[str]) -> dict[str, Any]:
    """Return the metrics of a segmentation, from its confusion matrix (rows are the truth), ready for JSON.

    Returns:
        `pixel_accuracy`; `class_accuracy` (mean recall of the classes that occur); `miou` (mean IoU of the classes that
        occur or were named); `per_class`, a list of dicts with `name`, `iou`, `precision`, `recall`, `f1` (None where
        nothing can be divided) and `support` (pixels). Where there is not one pixel, the three are None.
    """
    hits, support, named = counts.diagonal(), counts.sum(1), counts.sum(0)
    ious = _share(hits, support + named - hits)
    columns = {"iou": ious, "precision": _share(hits, named), "recall": _share(hits, support)}
    columns["f1"] = _share(2 * hits, support + named)
    return {
        "pixel_accuracy": _or_none(float(_share(hits.sum(), support.sum()))),
        "class_accuracy": _mean(columns["recall"]),
        "miou": _mean(ious),
        "per_class": [
            {
                "name": name,
                **{key: _or_none(float(values[place])) for key, values in columns.items()},
                "support": int(support[place]),
            }
            for place, name in enumerate(class_names)
        ],
    }


class BoundaryCounts:
    """Boundary F1, image by image: how much of the boundaries is found, within 0.75 % of the image's diagonal.

    A pixel is on the boundary of its class where a neighbour (of four) has another class. Of each class, precision is
    the share of its predicted boundary that lies near its true one, recall the reverse, both over all images together.
    Source: G. Csurka et al., "What is a good evaluation measure for semantic segmentation?", 2013.

    Args:
        num_classes: Classes of the masks.

    Attributes:
        counts: (2, 2, C): of predicted and true boundaries the pixels that are near the other's, and all of them.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.counts = np.zeros((2, 2, num_classes), np.int64)

    def update(self, truth: Mask, predicted: Mask) -> Counts:
        """Take in one image: masks (H, W); where the truth is 255, nothing counts. Return its own counts."""
        own = np.zeros_like(self.counts)
        predicted = np.where(truth == IGNORED, IGNORED, predicted).astype(np.uint8)
        reach = int(_NEAR * math.hypot(*truth.shape) + 0.5)
        edges = [np.where(_is_boundary(mask), mask, IGNORED).astype(np.uint8) for mask in (predicted, truth)]
        for side, (mine, others) in enumerate((edges, edges[::-1])):
            own[side, 1] = np.bincount(mine.ravel(), minlength=256)[: self.num_classes]
            own[side, 0] = _num_near(mine, others, self.num_classes, max(reach, 1))
        self.counts += own
        return own

    def compute(self) -> list[float | None]:
        """Return the boundary F1 of each class; None where neither truth nor prediction has a boundary of it."""
        return [_or_none(value) for value in boundary_f1(self.counts).tolist()]


def boundary_f1(counts: npt.NDArray[np.number]) -> npt.NDArray[np.float64]:
    """Return the boundary F1 of each class, (..., C); NaN where neither truth nor prediction has a boundary of it.

    Args:
        counts: (..., 2, 2, C), as `BoundaryCounts` has them.
    """
    shares = np.nan_to_num(_share(counts[..., 0, :], counts[..., 1, :]))
    precision, recall = shares[..., 0, :], shares[..., 1, :]
    total = precision + recall
    values = np.divide(2 * precision * recall, total, out=np.zeros_like(total), where=total > 0)
    return np.where(counts[..., 1, :].sum(-2) > 0, values, np.nan)


def _is_boundary(mask: Mask) -> npt.NDArray[np.bool_]:
    """Return (H, W): whether a pixel of a class has a neighbour of another class; the image's border is none."""
    edge = np.zeros(mask.shape, dtype=bool)
    for one, other in ((np.s_[1:], np.s_[:-1]), (np.s_[:, 1:], np.s_[:, :-1])):
        differs = (mask[one] != mask[other]) & (mask[one] != IGNORED) & (mask[other] != IGNORED)
        edge[one] |= differs
        edge[other] |= differs
    return edge


def _num_near(mine: Mask, others: Mask, num_classes: int, reach: int) -> Counts:
    """Return the number of each class's boundary pixels within `reach` of its boundary in the other mask."""
    found = np.zeros(num_classes, np.int64)
    for first in range(0, num_classes, 64):  # one bit for each class
        bits = np.zeros(others.shape, np.uint64 if num_classes - first > 16 else np.uint16)
        inside = (others >= first) & (others < min(first + 64, num_classes))
        bits[inside] = np.left_shift(bits.dtype.type(1), (others[inside] - first).astype(bits.dtype))
        wide = _dilated(bits, reach)
        chosen = (mine >= first) & (mine < min(first + 64, num_classes))
        classes = mine[chosen]
        near = (wide[chosen] >> (classes - first).astype(bits.dtype)) & bits.dtype.type(1) != 0
        found += np.bincount(classes[near], minlength=num_classes)[:num_classes]
    return found


def _dilated(bits: npt.NDArray[np.unsignedinteger], reach: int) -> npt.NDArray[np.unsignedinteger]:
    """Return each pixel with the bits of all pixels within a disk of this radius."""
    height, width = bits.shape
    spans = {1: np.pad(bits, ((0, 0), (reach, reach)))}  # of 1, 2, 4 ... pixels from a place to the right
    size = 1
    while size * 2 <= 2 * reach + 1:
        one = spans[size]
        two = one.copy()
        two[:, :-size] |= one[:, size:]
        size *= 2
        spans[size] = two
    out = np.zeros_like(bits)
    for dy in range(-min(reach, height - 1), min(reach, height - 1) + 1):
        half = math.isqrt(reach * reach - dy * dy)
        length = 2 * half + 1
        size = 1 << (length.bit_length() - 1)
        rows, onto = slice(max(0, dy), height + min(0, dy)), slice(max(0, -dy), height - max(0, dy))
        left = reach - half
        right = left + length - size
        out[onto] |= spans[size][rows, left : left + width] | spans[size][rows, right : right + width]
    return out


def _share(part: Any, whole: Any) -> npt.NDArray[np.float64]:
    shares: npt.NDArray[np.float64] = np.divide(
        part, whole, out=np.full(np.shape(part), np.nan), where=np.asarray(whole) > 0
    )
    return shares


def _mean(values: npt.NDArray[np.float64]) -> float | None:
    return None if np.isnan(values).all() else float(np.nanmean(values))


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
