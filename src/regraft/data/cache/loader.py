"""Batches in an order that the caller gives, prepared by threads a few batches ahead.

Nothing here is random and nothing about threads is ever saved: a batch is a function of the order, the bounds and
its number, so a run resumes at any batch with any number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from regraft.data.cache.cache import PixelCache
from regraft.data.labels import Labels
from regraft.machine.budget import num_cpus
from regraft.machine.prefetch import Prefetch, thread_pool
from regraft.wording import quantity

__all__ = ["Batch", "batch_bounds", "batches", "num_batches"]

Indices = npt.NDArray[np.int64]
Pixels = npt.NDArray[np.uint8]
Allocate = Callable[[tuple[int, ...]], Pixels]


class Batch(NamedTuple):
    """Rows of a split: numbers, int64 (n,); images, uint8 (n, height, width, channels), red first; labels.

    Labels are int64 (n,), or uint8 (n, classes) where an image may have any number of classes; in segmentation they
    are masks, uint8 (n, height, width): class positions, and 255 for pixels that are ignored.
    """

    indices: Indices
    images: Pixels
    labels: Labels


def num_batches(num_rows: int, batch_size: int) -> int:
    """Return the number of batches in this many rows; the last may be smaller."""
    return -(-num_rows // batch_size)


def batch_bounds(num_rows: int, batch_size: int, *, fewest: int = 1) -> Indices:
    """Return the first row of each batch, and the end of the last one, int64 (batches + 1,).

    Args:
        num_rows: Rows in all.
        batch_size: Rows in a batch; the last batch holds what is left.
        fewest: Rows that the last batch is to have at least. It gets them from the one before, as far as that one
            keeps as many itself: there are as many batches, of the same rows in the same order.

    Raises:
        ValueError: If a batch is to have no row.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size {batch_size}: a batch has at least one row")
    bounds = np.append(np.arange(0, num_rows, batch_size, dtype=np.int64), np.int64(num_rows))
    lacking = fewest - (num_rows - int(bounds[-2])) if len(bounds) > 2 else 0
    if lacking > 0 and batch_size - lacking >= fewest:
        bounds[-2] -= lacking
    return bounds


def batches(
    cache: PixelCache,
    labels: Labels | PixelCache,
    order: Indices,
    bounds: Indices,
    *,
    start_batch: int = 0,
    threads: int | None = None,
    ahead: int = 2,
    allocate: Allocate = lambda shape: np.empty(shape, dtype=np.uint8),
) -> Iterator[Batch]:
    """Return the rows named by `order`, in that order, from each of `bounds` to the next.

    Closing the iterator, or an error in the caller's loop, stops the threads.

    Args:
        cache: The pixels, in RAM, on the disk or streamed.
        labels: The label of each row of the cache; or its masks, `cache.masks`.
        order: Row numbers; any subset, in any order, repeats allowed.
        bounds: Where the batches begin in it, and where the last one ends (`batch_bounds`).
        start_batch: The number of the first batch to give, for resuming within an epoch.
        threads: Threads for what is not in RAM; None takes one for each processor.
        ahead: How many batches are prepared while the caller works on one.
        allocate: Makes the uint8 array of this shape for the images of a batch, such as one in pinned memory.

    Raises:
        ValueError: If the sizes do not fit together.
        DecodeError: If a streamed file became unreadable since it was checked.
    """
    order = np.asarray(order, dtype=np.int64)
    if start_batch < 0 or ahead < 0:
        raise ValueError(f"start_batch {start_batch}, ahead {ahead}: they count from 0")
    if len(labels) != len(cache):
        raise ValueError(f"{quantity(len(labels), 'label')} for {quantity(len(cache), 'row')}")
    if len(order) and not 0 <= order.min() <= order.max() < len(cache):
        raise ValueError(f"the order names rows from {order.min()} to {order.max()}; the cache has {len(cache)}")
    if bounds[0] != 0 or bounds[-1] != len(order):
        raise ValueError(f"batches from {bounds[0]} to {bounds[-1]} of an order of {quantity(len(order), 'row')}")
    parts = [order[start:end] for start, end in pairwise(bounds[start_batch:].tolist())]
    return _run(cache, labels, parts, threads, ahead, allocate)


def _run(
    cache: PixelCache,
    labels: Labels | PixelCache,
    batches: Sequence[Indices],
    threads: int | None,
    ahead: int,
    allocate: Allocate,
) -> Iterator[Batch]:
    caches = [cache, labels] if isinstance(labels, PixelCache) else [cache]
    num_threads = (threads or num_cpus()) if any(part.needs_threads for part in caches) else 1
    with thread_pool(num_threads, "load") as pool:

        def begin(indices: Indices) -> _Pending:
            arrays = [allocate((len(indices), *part.program.row_shape)) for part in caches]
            parts = [
                job
                for part, array in zip(caches, arrays, strict=True)
                for job in _begin(part, indices, array, pool, num_threads)
            ]
            return _Pending(indices, arrays, parts)

        for pending in Prefetch(begin, batches, ahead + 1):
            yield _finish(pending, labels)


class _Pending(NamedTuple):
    indices: Indices
    arrays: list[Pixels]
    parts: list[Future[None]]


def _begin(
    cache: PixelCache, indices: Indices, out: Pixels, pool: ThreadPoolExecutor, num_parts: int
) -> list[Future[None]]:
    size = -(-len(indices) // num_parts)
    parts = [slice(start, start + size) for start in range(0, len(indices), size)]
    return [pool.submit(cache.fill, indices[part], out[part]) for part in parts]


def _finish(pending: _Pending, labels: Labels | PixelCache) -> Batch:
    for part in pending.parts:
        part.result()
    images, *masks = pending.arrays
    return Batch(pending.indices, images, masks[0] if isinstance(labels, PixelCache) else labels[pending.indices])
