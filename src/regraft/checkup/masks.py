"""What is wrong with masks: empty ones, islands of a few pixels, classes with few pixels, copies that disagree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from regraft.checkup.issue import Issue, Item
from regraft.checkup.rows import Rows
from regraft.data.masks.masks import mask_or_reason
from regraft.machine.budget import num_cpus
from regraft.machine.prefetch import in_order
from regraft.wording import percent, quantity

__all__ = ["MasksSeen", "mask_issues", "survey_masks"]

Places = npt.NDArray[np.int64]
Mask = npt.NDArray[np.uint8]

_VOID = 255
_SIDE = 64  # at which masks of copies are compared
_RARE = 1e-4  # share of all pixels
_TINY = 1e-4  # share of an image that an island has less of
_MANY = 5  # such islands
_AGREE = 0.7  # share of pixels of copies that have the same class


class MasksSeen(NamedTuple):
    """What a pass over masks found, a row for each image.

    Attributes:
        pixels: How many pixels each class has, (rows, classes).
        islands: How many separate areas of one class are tiny.
        small: Each mask at 64 x 64 pixels; 255 where it says nothing.
        reasons: Why a mask cannot be read, by row.
    """

    pixels: Places
    islands: Places
    small: Mask
    reasons: dict[int, str]


def survey_masks(rows: Rows, threads: int | None = None) -> MasksSeen:
    """Read each mask once.

    Args:
        rows: Images with masks.
        threads: Threads that read; None takes one for each processor.
    """
    table = rows.data.class_table
    paths = [mask for split in rows.data.splits.values() for mask in split.masks]
    num = len(rows.data.class_names)
    found = MasksSeen(
        np.zeros((len(paths), num), dtype=np.int64),
        np.zeros(len(paths), dtype=np.int64),
        np.full((len(paths), _SIDE, _SIDE), _VOID, dtype=np.uint8),
        {},
    )

    def look(row: int) -> str:
        mask = "has no class table" if table is None else mask_or_reason(paths[row], table)
        if isinstance(mask, str):
            return mask
        found.pixels[row] = np.bincount(mask.ravel(), minlength=256)[:num]
        found.islands[row] = _num_islands(mask)
        found.small[row] = _shrunk(mask)
        return ""

    for row, reason in enumerate(in_order(look, range(len(paths)), threads or num_cpus())):
        if reason:
            found.reasons[row] = reason
    return found


def mask_issues(rows: Rows, seen: MasksSeen, groups: Sequence[Places]) -> Iterator[Issue]:
    """Yield what is wrong with masks.

    Args:
        rows: Images with masks.
        seen: What the pass over their masks found.
        groups: Images that are copies of each other.
    """
    unreadable = sorted(seen.reasons)
    if unreadable:
        text = f"{quantity(len(unreadable), 'mask')} cannot be used; training leaves these images out."
        details = [seen.reasons[row] for row in unreadable]
        yield Issue("unusable-mask", "Masks that cannot be used", "warning", text, rows.items(unreadable, details))
    good = np.setdiff1d(np.arange(len(rows)), np.array(unreadable, dtype=np.int64))
    yield from _empty(rows, seen, good)
    yield from _rare(rows, seen)
    yield from _islands(rows, seen, good)
    yield from _disagreeing(rows, seen, groups)


def _empty(rows: Rows, seen: MasksSeen, good: Places) -> Iterator[Issue]:
    num_classes = (seen.pixels[good] > 0).sum(1)
    void, single = good[num_classes == 0].tolist(), good[num_classes == 1]
    if void:
        text = f"{quantity(len(void), 'mask')} of nothing but ignored pixels: nothing to learn from."
        yield Issue("void-mask", "Masks that say nothing", "warning", text, rows.items(void))
    if not len(single) or len(single) == len(good):
        return
    names = [rows.data.class_names[int(seen.pixels[row].argmax())] for row in single.tolist()]
    text = f"{quantity(len(single), 'mask')} of one class only: empty, where that is the background."
    details = [f"all of it is {name}" for name in names]
    yield Issue("empty-mask", "Masks of one class", "note", text, rows.items(single.tolist(), details))


def _rare(rows: Rows, seen: MasksSeen) -> Iterator[Issue]:
    total = seen.pixels.sum(0)
    shares = total / max(int(total.sum()), 1)
    for place in np.flatnonzero((shares < _RARE) & (total > 0)).tolist():
        having = np.flatnonzero(seen.pixels[:, place]).tolist()
        name = rows.data.class_names[place]
        text = f"Class {name!r} has {percent(shares[place], 3)} of all pixels, in {quantity(len(having), 'mask')}."
        yield Issue("rare-class", "Classes with almost no pixels", "note", text, rows.items(having))


def _islands(rows: Rows, seen: MasksSeen, good: Places) -> Iterator[Issue]:
    many = good[seen.islands[good] >= _MANY]
    many = many[np.argsort(-seen.islands[many], kind="stable")]
    if len(many):
        text = f"{quantity(len(many), 'mask')} with {_MANY} or more islands of less than {_TINY:.2%} of the image: "
        text += "often slips of a brush, or a mask that was resized as a photograph."
        details = [quantity(int(seen.islands[row]), "island") for row in many.tolist()]
        yield Issue("islands", "Masks with tiny islands", "note", text, rows.items(many.tolist(), details))


def _disagreeing(rows: Rows, seen: MasksSeen, groups: Sequence[Places]) -> Iterator[Issue]:
    items: list[Item] = []
    number = 0
    for group in groups:
        usable = [row for row in group.tolist() if row not in seen.reasons]
        agreed = [_agreement(seen.small[usable[0]], seen.small[row]) for row in usable[1:]]
        if agreed and min(agreed) < _AGREE:
            shares = [1.0, *agreed]
            details = [f"agrees in {percent(share, 0)} of its pixels with the first" for share in shares]
            items += [rows.item(row, detail, group=number) for row, detail in zip(usable, details, strict=True)]
            number += 1
    if items:
        text = f"{quantity(number, 'group')} of near copies whose masks disagree: at least one of each is wrong."
        yield Issue("mask-conflict", "Copies whose masks disagree", "warning", text, tuple(items))


def _agreement(one: Mask, two: Mask) -> float:
    """Return the share of pixels with the same class, of those that both say something of, mirrored where that fits."""
    shares = []
    for other in (two, two[:, ::-1]):
        both = (one != _VOID) & (other != _VOID)
        shares.append(float((one == other)[both].mean()) if both.any() else 1.0)
    return max(shares)


def _shrunk(mask: Mask) -> Mask:
    down, across = (np.linspace(0, side - 1, _SIDE).round().astype(np.int64) for side in mask.shape)
    return mask[down][:, across]


def _num_islands(mask: Mask) -> int:
    """Return how many separate areas of one class are smaller than a share of the image; void ones do not count."""
    sizes, codes = _areas(mask)
    return int(((sizes < max(2.0, _TINY * mask.size)) & (codes != _VOID)).sum())


def _areas(mask: Mask) -> tuple[Places, Mask]:
    """Return the size and the class of each area that hangs together along rows and columns.

    Runs of a class in a row are joined with those that they touch in the row above.
    """
    starts = np.ones(mask.shape, dtype=bool)
    starts[:, 1:] = mask[:, 1:] != mask[:, :-1]
    run = np.cumsum(starts.ravel()).reshape(mask.shape) - 1
    sizes, codes = np.bincount(run.ravel()), mask.ravel()[np.flatnonzero(starts.ravel())]
    touching = mask[1:] == mask[:-1]
    pairs = np.unique(np.stack([run[:-1][touching], run[1:][touching]], axis=1), axis=0)
    label = np.arange(len(sizes))
    while True:
        low = np.minimum(label[pairs[:, 0]], label[pairs[:, 1]])
        before = label.copy()
        np.minimum.at(label, pairs[:, 0], low)
        np.minimum.at(label, pairs[:, 1], low)
        label = label[label]
        if (label == before).all():
            break
    roots, at = np.unique(label, return_inverse=True)
    return np.bincount(at, weights=sizes).astype(np.int64), codes[roots]
