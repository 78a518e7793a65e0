"""Images and their masks, row for row: what fits together stays, and everything else is named."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from regraft.data.cache.cache import PixelCache
from regraft.data.dataset import DataSet, Quarantined, Split
from regraft.data.masks.mask_check import Misfit, misfit
from regraft.data.masks.masks import mask_or_reason
from regraft.machine.budget import num_cpus
from regraft.machine.prefetch import in_order
from regraft.wording import quantity

__all__ = ["class_pixels", "paired", "surveyed"]

_CHUNK = 16
_MASK = "has a mask, {path!r}, that {reason}"


def paired(data: DataSet, images: Mapping[str, PixelCache], masks: Mapping[str, PixelCache], threads: int) -> DataSet:
    """Return the data set of the rows whose image and mask can both be used; the caches lose the others.

    Row n of `images[split]`, of its attribute `masks` and of the split are then one sample, and the labels say which
    classes the masks have.

    Args:
        data: The rows.
        images: The caches of the images.
        masks: The caches of the masks.
        threads: Threads that compare sizes.
    """
    splits: dict[str, Split] = {}
    found = _Left(data.root)
    for name, split in data.splits.items():
        reasons = _reasons(split, images[name], masks[name], data.root)
        good = found.look(name, split, reasons, threads)
        for cache in (images[name], masks[name]):
            cache.keep(np.searchsorted(cache.good, good))
        images[name].masks = masks[name]
        present = (class_pixels(masks[name], len(data.class_names), threads) > 0).astype(np.uint8)
        splits[name] = replace(split.take(good), labels=present)
    return found.without(data, splits)


def surveyed(data: DataSet, threads: int | None = None) -> DataSet:
    """Return the data set of the usable rows as `paired` does, without decoding: masks are read at their own size.

    Args:
        data: The rows.
        threads: Threads that read; None takes one for each processor.
    """
    table = data.class_table
    if table is None:
        return data
    splits: dict[str, Split] = {}
    found = _Left(data.root)
    for name, split in data.splits.items():
        present = np.zeros((len(split), len(data.class_names)), dtype=np.uint8)

        def look(row: int, masks: Sequence[str] = split.masks, present: npt.NDArray[np.uint8] = present) -> str:
            mask = mask_or_reason(masks[row], table)
            if isinstance(mask, str):
                return _MASK.format(path=_short(masks[row], data.root), reason=mask)
            present[row] = np.bincount(mask.ravel(), minlength=256)[: present.shape[1]] > 0
            return ""

        num_threads = threads or num_cpus()
        reasons = {row: text for row, text in enumerate(in_order(look, range(len(split)), num_threads)) if text}
        good = found.look(name, split, reasons, num_threads)
        splits[name] = replace(split.take(good), labels=present[good])
    return found.without(data, splits)


class _Left:
    """The rows that cannot be used, and what people should know of the others."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.leaving: list[Quarantined] = []
        self.warnings: list[str] = []

    def look(self, name: str, split: Split, reasons: dict[int, str], threads: int) -> npt.NDArray[np.int64]:
        """Return the rows of a split whose mask lies on its image, of those that have no reason against them yet."""
        rows = np.array([row for row in range(len(split)) if row not in reasons], dtype=np.int64)
        misfits = _misfits(split, rows, threads)
        reasons |= {row: wrong.reason for row, wrong in misfits.items() if wrong.reason}
        turned = sum(not wrong.reason for wrong in misfits.values())
        if turned:
            self.warnings.append(
                quantity(turned, f"{name} image is turned by its", f"{name} images are turned by their")
                + " EXIF tag, with masks that fit either way: make sure that the masks were drawn on upright images."
            )
        self.leaving += [Quarantined(split.paths[row], reasons[row], name) for row in sorted(reasons)]
        return np.array([row for row in range(len(split)) if row not in reasons], dtype=np.int64)

    def without(self, data: DataSet, splits: dict[str, Split]) -> DataSet:
        """Return the data set of the other rows."""
        return replace(
            data,
            splits=splits,
            quarantined=(*data.quarantined, *self.leaving),
            warnings=(*data.warnings, *self.warnings),
        )


def class_pixels(masks: PixelCache, num_classes: int, threads: int = 1) -> npt.NDArray[np.int64]:
    """Return the number of pixels of each class in each mask of the cache, at its size, int64 (rows, num_classes)."""
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
    """Return why rows cannot be used, by row: their image, or else their mask, cannot be read."""
    reasons = {}
    for cache, form in ((masks, _MASK), (images, "{reason}")):
        left = np.setdiff1d(np.arange(len(split)), cache.good)
        for row, item in zip(left.tolist(), cache.quarantined, strict=True):
            reasons[row] = form.format(path=_short(item.path, root), reason=item.reason)
    return reasons


def _short(path: str, root: str) -> str:
    """Return a path as it is seen from the root of the data set."""
    return os.path.relpath(path, root) if path.startswith(root + os.sep) else path


def _misfits(split: Split, rows: npt.NDArray[np.int64], threads: int) -> dict[int, Misfit]:
    def look(part: npt.NDArray[np.int64]) -> list[tuple[int, Misfit | None]]:
        return [(row, misfit(split.paths[row], split.masks[row])) for row in part.tolist()]

    parts = (rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK))
    found = [pair for part in in_order(look, parts, threads) for pair in part]
    return {row: wrong for row, wrong in found if wrong is not None}
