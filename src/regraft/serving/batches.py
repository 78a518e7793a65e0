"""Images of many clients, computed together: one batch at a time, of whatever waits when the last one ends."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from regraft.serving.answers import Decoded
from regraft.serving.limits import Limits

__all__ = ["Batches"]

Rows = list[dict[str, Any]]
_Waiting = tuple[Decoded, "asyncio.Future[dict[str, Any]]"]


class Batches:
    """A queue in front of one network.

    Args:
        compute: Images -> rows, called in a thread of its own.
        limits: Of a batch, and how long it waits for others.
        on_batch: Called with the number of images of each batch.
    """

    def __init__(
        self, compute: Callable[[Sequence[Decoded]], Rows], limits: Limits, on_batch: Callable[[int], None]
    ) -> None:
        self._compute, self._limits, self._on_batch = compute, limits, on_batch
        self._queue: asyncio.Queue[_Waiting] = asyncio.Queue()
        self._thread = ThreadPoolExecutor(1, "network")
        self._task: asyncio.Task[None] | None = None
        self.num_coming = 0  # images that are decoded or wait

    def start(self) -> None:
        """Begin to compute."""
        self._task = asyncio.create_task(self._work())

    async def stop(self) -> None:
        """Compute no further batch."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def answer(self, image: Decoded) -> dict[str, Any]:
        """Return what is said of an image, once its batch was computed."""
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._queue.put_nowait((image, future))
        return await future

    async def _work(self) -> None:
        while True:
            batch = [await self._queue.get()]
            self._take(batch)
            if len(batch) < min(self._limits.batch, self.num_coming):
                await asyncio.sleep(self._limits.wait_seconds)
                self._take(batch)
            batch = [(image, future) for image, future in batch if not future.done()]  # whose client still waits
            if batch:
                await self._answer(batch)

    def _take(self, batch: list[_Waiting]) -> None:
        while len(batch) < self._limits.batch and not self._queue.empty():
            batch.append(self._queue.get_nowait())

    async def _answer(self, batch: list[_Waiting]) -> None:
        loop = asyncio.get_running_loop()
        try:
            rows = await loop.run_in_executor(self._thread, self._compute, [image for image, _ in batch])
        except Exception as error:  # told to each of those who wait
            for _, future in batch:
                if not future.done():
                    future.set_exception(error)
            return
        self._on_batch(len(batch))
        for (_, future), row in zip(batch, rows, strict=True):
            if not future.done():
                future.set_result(row)
