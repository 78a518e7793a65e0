"""The files of a listing, fetched when they are asked for, and a little before where it is known which come next."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor

from regraft.data.files.disk_file import DiskFile
from regraft.data.files.index import Index
from regraft.data.files.remote.answer import RemoteError
from regraft.data.files.remote.fetch import fetch
from regraft.data.files.remote.listing import PARALLEL, mark_number, read_listing, url_of

__all__ = ["RemoteRows"]


class RemoteRows:
    """The files of one listing.

    Args:
        file: The listing.
        most: The largest file that is taken, in bytes.
    """

    def __init__(self, file: DiskFile, most: int) -> None:
        listing = read_listing(file)
        self._base, self._texts, self._most = listing["base"], listing["texts"], most
        self._files = listing["files"]
        self._coming: dict[int, Future[bytes | str]] = {}
        self._locks: dict[int, threading.Lock] = {}  # by process: a lock that is held does not open in a fork
        self._pool: ThreadPoolExecutor | None = None
        self._process = 0

    @property
    def _lock(self) -> threading.Lock:
        return self._locks.setdefault(os.getpid(), threading.Lock())

    def begin(self, index: Index, rows: Iterable[int]) -> None:
        """Begin to fetch files, which `read` will be asked for."""
        with self._lock:
            if self._pool is None or self._process != os.getpid():  # threads do not come along into a fork
                self._pool, self._process = ThreadPoolExecutor(PARALLEL, "regraft-fetch"), os.getpid()
                self._coming.clear()
            for row in rows:
                if row not in self._coming:
                    self._coming[row] = self._pool.submit(self._fetched, index, row)

    def read(self, index: Index, row: int) -> bytes | str:
        """Return the bytes of a member, or the reason as text why there are none."""
        with self._lock:
            coming = self._coming.pop(row, None) if self._process == os.getpid() else None
        return self._fetched(index, row) if coming is None else coming.result()

    def _fetched(self, index: Index, row: int) -> bytes | str:
        path, size, mark = self._files[int(index.table["offset"][row])]
        if path in self._texts:
            text: str = self._texts[path]
            return text.encode("utf-8", "surrogateescape")
        try:
            data, told = fetch(url_of(self._base, path), self._most)
        except RemoteError as error:
            return f"cannot be fetched: {error}"
        if (size >= 0 and told.size != size) or (mark and told.mark and mark_number(told.mark) != mark_number(mark)):
            return "is another file than when it was listed (`regraft cache clear` lists it anew)"
        return data
