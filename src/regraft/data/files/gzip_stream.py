"""Bytes from the middle of a gzip file: inflating begins at the last of many places at which its state was kept.

The first way through keeps a state every few megabytes, 40 kB each. From then on any byte costs at most that many
megabytes of inflating; without, each would cost the whole file before it.
"""

from __future__ import annotations

import copy
import threading
import zlib
from bisect import bisect_right
from typing import Any

from regraft.data.files.disk_file import DiskFile
from regraft.errors import DataError

__all__ = ["GzipStream", "is_gzip"]

_CHUNK = 1 << 14  # a state that is kept holds as much of the file
_SLICE = 1 << 18  # bytes that are inflated at once
_SPACING = 1 << 21
_MOST_POINTS = 1024
_LARGEST = 1 << 34
_BOMB_BYTES, _BOMB_RATIO = 1 << 28, 200
_GZIP = 31  # what zlib calls it


def is_gzip(head: bytes) -> bool:
    """Return whether a file that begins like this is compressed with gzip."""
    return head.startswith(b"\x1f\x8b\x08")


class _Inflating:
    """The state of inflating at one place; copies of it continue on their own."""

    def __init__(self, file: DiskFile) -> None:
        self.file = file
        self.place = 0  # of the next byte that is taken, as it was before compression
        self._at = 0  # of the next byte that is read from the file
        self._waiting = b""  # read, and not yet inflated
        self._ready = b""  # inflated, and not yet taken
        self._state: Any = zlib.decompressobj(_GZIP)

    @property
    def is_bare(self) -> bool:
        """Whether nothing that was inflated waits to be taken: such a state is small."""
        return not self._ready

    def copy(self) -> _Inflating:
        """Return the same state once more."""
        other = copy.copy(self)
        other._state = self._state.copy()
        return other

    def take(self, num_bytes: int) -> bytes:
        """Return the next bytes; fewer at the end."""
        if not self._ready:
            self._ready = self._inflated()
        part, self._ready = self._ready[:num_bytes], self._ready[num_bytes:]
        self.place += len(part)
        return part

    def _inflated(self) -> bytes:
        while True:
            if not self._waiting:
                self._waiting = self.file.read(self._at, _CHUNK)
                self._at += len(self._waiting)
                if not self._waiting:
                    if self._state.eof or self.file.size == 0:
                        return b""
                    raise EOFError
            if self._state.eof:  # another gzip file behind it, or the zeros that fill a block of a tape
                self._waiting = self._waiting.lstrip(b"\0")
                if not self._waiting:
                    continue
                self._state = zlib.decompressobj(_GZIP)
            part: bytes = self._state.decompress(self._waiting, _SLICE)
            self._waiting = self._state.unused_data if self._state.eof else self._state.unconsumed_tail
            if part:
                return part


class GzipStream:
    """The bytes of a gzip file, from any place and any thread.

    Args:
        file: It.

    Raises:
        DataError: From `read`: it is damaged, cut off, or grows without reason.
    """

    def __init__(self, file: DiskFile) -> None:
        self.file = file
        self._points = [_Inflating(file)]
        self._spacing = _SPACING
        self._lock = threading.Lock()
        self._own = threading.local()

    def read(self, place: int, num_bytes: int) -> bytes:
        """Return bytes from a place on; fewer at the end.

        Raises:
            ChangedError: The file is another one by now.
            OSError: It cannot be read.
        """
        state = self._nearest(place)
        try:
            while state.place < place and state.take(min(_SLICE, place - state.place)):
                self._note(state)
            parts: list[bytes] = []
            while num_bytes > 0 and state.place >= place and (part := state.take(min(_SLICE, num_bytes))):
                parts.append(part)
                num_bytes -= len(part)
                place += len(part)
                self._note(state)
        except EOFError:
            raise self._damaged("is cut off") from None
        except zlib.error as error:
            raise self._damaged(f"is damaged ({error})") from None
        self._own.state = state
        return b"".join(parts)

    def _nearest(self, place: int) -> _Inflating:
        """Return the state from which the way to a place is shortest: where this thread was, or one that was kept."""
        with self._lock:
            found = self._points[bisect_right(self._points, place, key=lambda point: point.place) - 1]
        own: _Inflating | None = getattr(self._own, "state", None)
        return own if own is not None and found.place <= own.place <= place else found.copy()

    def _note(self, state: _Inflating) -> None:
        """Keep the state where it is small, and far enough behind the last one that was kept."""
        if not state.is_bare or state.place < self._points[-1].place + self._spacing:
            return
        if state.place > _LARGEST:
            raise self._refused(f"holds more than {_LARGEST >> 30} GiB, too much to find images in it")
        if state.place > _BOMB_BYTES and state.place > _BOMB_RATIO * self.file.size:
            raise self._refused(f"grows from {self.file.size:,} to more than {state.place:,} bytes")
        with self._lock:
            if state.place >= self._points[-1].place + self._spacing:
                self._points.append(state.copy())
            if len(self._points) > _MOST_POINTS:
                self._points, self._spacing = self._points[::2], 2 * self._spacing

    def _damaged(self, what: str) -> DataError:
        return DataError(
            f"{self.file.path!r} {what}.",
            "a whole archive",
            f"copy or download it again; `gzip -t {self.file.name}` tests it",
        )

    def _refused(self, what: str) -> DataError:
        return DataError(
            f"{self.file.path!r} {what}.", "", f"decompress it (`gunzip -k {self.file.name}`), and give the .tar file"
        )
