"""Files decoded by threads, some batches ahead of their reader: for inputs that are looked at once.

Needs no torch, so that decoding can begin while torch is still being imported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from threading import Event
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from regraft.data.decode.decode import PixelProgram, decode_or_reason
from regraft.data.decode.memory import MemoryImage, read_source
from regraft.machine.budget import num_cpus
from regraft.machine.prefetch import Prefetch

__all__ = ["DecodedBatch", "DecodedStream"]

Pixels = npt.NDArray[np.uint8]
Allocate = Callable[[tuple[int, ...]], Pixels]

_AHEAD = 4
_MOST_BYTES = 128_000_000  # of pixels that wait for a reader who is not there yet


class DecodedBatch(NamedTuple):
    """Paths; images, uint8 (n, height, width, channels); why a path has none (its pixels are zeros), else None."""

    paths: list[str]
    images: Pixels
    reasons: list[str | None]


class _Pending(NamedTuple):
    paths: list[str]
    images: Pixels
    reasons: list[Future[str | None]]


class DecodedStream:
    """Batches of decoded files, in order; threads begin when it is made, and end when it is read or closed.

    Args:
        paths: The files, or images in memory; read as far ahead as is decoded.
        program: What to do with their pixels.
        batch_size: Files in a batch; the last one has what is left.
        threads: Decoding threads; None takes one for each processor.
        far: Whether the reader comes later, and is busy until then: decodes 128 MB of pixels ahead, not four batches,
            and leaves it one processor of several.
        allocate: Makes the uint8 array of this shape for the images of a batch.
    """

    def __init__(
        self,
        paths: Iterable[str | MemoryImage],
        program: PixelProgram,
        *,
        batch_size: int,
        threads: int | None = None,
        far: bool = False,
        allocate: Allocate = lambda shape: np.empty(shape, dtype=np.uint8),
    ) -> None:
        self.program, self.batch_size = program, batch_size
        self._allocate = allocate
        self._shape = (*program.size, program.num_channels)
        batch_bytes = batch_size * int(np.prod(self._shape))
        self._pool = ThreadPoolExecutor(threads or num_cpus(), thread_name_prefix="regraft-decode")
        self._reader_is_here = Event()
        if far and (threads or num_cpus()) > 1:
            self._pool.submit(self._reader_is_here.wait)  # one of the threads
        coming = iter(paths)
        parts = iter(lambda: list(islice(coming, batch_size)), [])
        most = max(_AHEAD, _MOST_BYTES // batch_bytes) if far else _AHEAD
        self._batches = Prefetch(self._begin, parts, most)

    def __iter__(self) -> Iterator[DecodedBatch]:
        self._reader_is_here.set()
        try:
            for paths, images, reasons in self._batches:
                yield DecodedBatch(paths, images, [reason.result() for reason in reasons])
                self._batches.most = _AHEAD
        finally:
            self.close()

    def close(self) -> None:
        """Stop the threads; nothing more is decoded."""
        self._reader_is_here.set()
        self._batches.clear()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _begin(self, part: list[str | MemoryImage]) -> _Pending:
        images = self._allocate((len(part), *self._shape))
        reasons = [self._pool.submit(self._decode, source, images[row]) for row, source in enumerate(part)]
        return _Pending([str(source) for source in part], images, reasons)

    def _decode(self, source: str | MemoryImage, pixels: Pixels) -> str | None:
        """Fill in the pixels of an image; where it cannot be read, zeros, and the reason."""
        data = read_source(source)
        result = data if isinstance(data, str) else decode_or_reason(data, self.program)
        pixels[...] = 0 if isinstance(result, str) else result
        return result if isinstance(result, str) else None
