"""Images and their masks, row for row: what fits together stays, and everything else is named."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from regraft.data.budget import in_order
from regraft.data.dataset import DataSet, Quarantined, Split
from regraft.data.mask_check import Misfit, misfit

if TYPE_CHECKING:
    from regraft.data.cache import PixelCache

__all__ = ["class_pixels", "paired"]

_CHUNK = 16


def paired(data: DataSet, images: Mapping[str, PixelCache], masks: Mapping[str, PixelCache], threads: int) -> DataSet:
    """The data set of the rows whose image and mask can both be used; the caches lose the others.

    Row n of `images[split]`, of its attribute `masks` and of the split are then one sample, and the labels say which
    classes the masks have.

    Args:
        data: The rows.
        images: The caches of the images.
        masks: The caches of the masks.
        threads: Threads that compare sizes.
    """
    splits: dict[str, Split] = {}
    leaving: list[Quarantined] = []
    warnings: list[str] = []
    for name, split in data.splits.items():
        reasons = _reasons(split, images[name], masks[name], data.root)
        rows = np.array([row for row in range(len(split)) if row not in reasons], dtype=np.int64)
        misfits = _misfits(split, rows, threads)
        reasons |= {row: found.reason for row, found in misfits.items() if found.reason}
        turned = sum(not found.reason for found in misfits.values())
        if turned:
            warnings.append(
                f"{turned} {name} images are turned by their EXIF tag, and their masks fit either way: make sure that "
                "the masks were drawn on the upright pictures."
            )
        good = np.array([row for row in range(len(split)) if row not in reasons], dtype=np.int64)
        for cache in (images[name], masks[name]):
            cache.keep(np.searchsorted(cache.good, good))
        images[name].masks = masks[name]
        leaving += [Quarantined(split.paths[row], reasons[row], name) for row in sorted(reasons)]
        present = (class_pixels(masks[name], len(data.class_names), threads) > 0).astype(np.uint8)
        splits[name] = replace(split.take(good), labels=present)
    return replace(
        data,
        splits=splits,
        quarantined=(*data.quarantined, *leaving),
        warnings=(*data.warnings, *warnings),
    )


def class_pixels(masks: PixelCache, num_classes: int, threads: int = 1) -> npt.NDArray[np.int64]:
    """How many pixels of each class each mask has at the size of the cache, int64 of shape (rows, num_classes)."""
    counts = np.zeros((len(masks), num_classes), dtype=np.int64)

    def count(rows: npt.NDArray[np.int64]) -> None:
        found = np.empty((len(rows), *masks.program.row_shape), dtype=np.uint8)
        masks.fill(rows, found)
        for row, mask in zip(rows.tolist(), found, strict=True):
            counts[row] = np.bincount(mask.ravel(), minlength=256)[:num_classes]

    rows = np.arange(len(masks))
    for _ in in_order(count, (rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK)), threads):
        pass
    return counts


def _reasons(split: Split, images: PixelCache, masks: PixelCache, root: str) -> dict[int, str]:
    """Why rows cannot be used, by row: their image, or else their mask, cannot be read."""
    reasons = {}
    for cache, form in ((masks, "has a mask, {path!r}, that {reason}"), (images, "{reason}")):
        left = np.setdiff1d(np.arange(len(split)), cache.good)
        for row, item in zip(left.tolist(), cache.quarantined, strict=True):
            path = os.path.relpath(item.path, root) if item.path.startswith(root + os.sep) else item.path
            reasons[row] = form.format(path=path, reason=item.reason)
    return reasons


def _misfits(split: Split, rows: npt.NDArray[np.int64], threads: int) -> dict[int, Misfit]:
    def look(part: npt.NDArray[np.int64]) -> list[tuple[int, Misfit | None]]:
        return [(row, misfit(split.paths[row], split.masks[row])) for row in part.tolist()]

    parts = (rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK))
    found = [pair for part in in_order(look, parts, threads) for pair in part]
    return {row: wrong for row, wrong in found if wrong is not None}
