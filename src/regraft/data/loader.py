"""Batches in an order that the caller gives, prepared by threads a few batches ahead.

Nothing here is random and nothing about threads is ever saved: a batch is a function of the order, the batch size
and its number, so a run resumes at any batch with any number of threads.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from regraft.data.budget import num_cpus
from regraft.data.cache import PixelCache
from regraft.data.labels import Labels

__all__ = ["Batch", "batches", "num_batches"]

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
    """How many batches hold this many rows; the last may be smaller."""
    return -(-num_rows // batch_size)


def batches(
    cache: PixelCache,
    labels: Labels | PixelCache,
    order: Indices,
    batch_size: int,
    *,
    start_batch: int = 0,
    threads: int | None = None,
    ahead: int = 2,
    allocate: Allocate = lambda shape: np.empty(shape, dtype=np.uint8),
) -> Iterator[Batch]:
    """The rows named by `order`, in that order, `batch_size` at a time.

    Closing the iterator, or an error in the caller's loop, stops the threads.

    Args:
        cache: The pixels, in RAM, on the disk or streamed.
        labels: The label of each row of the cache; or its masks, `cache.masks`.
        order: Row numbers; any subset, in any order, repeats allowed.
        batch_size: Rows in a batch; the last batch holds what is left.
        start_batch: The number of the first batch to give, for resuming within an epoch.
        threads: Threads for what is not in RAM; None takes one for each processor.
        ahead: How many batches are prepared while the caller works on one.
        allocate: Makes the uint8 array of this shape for the images of a batch, such as one in pinned memory.

    Raises:
        ValueError: If the sizes do not fit together.
        DecodeError: If a streamed file became unreadable since it was checked.
    """
    order = np.asarray(order, dtype=np.int64)
    if batch_size < 1 or start_batch < 0 or ahead < 0:
        raise ValueError(f"batch_size {batch_size}, start_batch {start_batch}, ahead {ahead}: sizes count from 1, or 0")
    if len(labels) != len(cache):
        raise ValueError(f"{len(labels)} labels for {len(cache)} rows")
    if len(order) and not 0 <= order.min() <= order.max() < len(cache):
        raise ValueError(f"the order names rows from {order.min()} to {order.max()}; the cache has {len(cache)}")
    return _run(cache, labels, order[start_batch * batch_size :], batch_size, threads, ahead, allocate)


def _run(
    cache: PixelCache,
    labels: Labels | PixelCache,
    order: Indices,
    batch_size: int,
    threads: int | None,
    ahead: int,
    allocate: Allocate,
) -> Iterator[Batch]:
    caches = [cache, labels] if isinstance(labels, PixelCache) else [cache]
    num_threads = (threads or num_cpus()) if any(part.needs_threads for part in caches) else 1
    pool = ThreadPoolExecutor(num_threads, thread_name_prefix="regraft-load")
    waiting: deque[_Pending] = deque()
    try:
        for start in range(0, len(order), batch_size):
            indices = order[start : start + batch_size]
            arrays = [allocate((len(indices), *part.program.row_shape)) for part in caches]
            parts = [
                job
                for part, array in zip(caches, arrays, strict=True)
                for job in _begin(part, indices, array, pool, num_threads)
            ]
            waiting.append(_Pending(indices, arrays, parts))
            if len(waiting) > ahead:
                yield _finish(waiting.popleft(), labels)
        while waiting:
            yield _finish(waiting.popleft(), labels)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


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
