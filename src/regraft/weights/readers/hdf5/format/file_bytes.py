"""The bytes of an HDF5 file: numbers, signatures and names at an offset, each inside the file and counted."""

from __future__ import annotations

from struct import unpack_from

from regraft.weights.limits import budget

__all__ = ["MAX_TEXT", "UNDEFINED", "FileBytes", "FormatError", "LinkError", "NotClassicError", "padded"]

UNDEFINED = 0xFFFFFFFFFFFFFFFF
MAX_TEXT = 128 * 2**20
_MAX_NAME = 64 * 1024


class FormatError(ValueError):
    """Bytes that are no HDF5."""


class NotClassicError(Exception):
    """A valid part of HDF5 that only newer files use."""


class LinkError(Exception):
    """A link that may lead out of the file."""


class FileBytes:
    """A view of the file, `base` (where its addresses count from), and how much text was taken from it."""

    __slots__ = ("_num_text", "_step", "base", "budget", "view")

    def __init__(self, view: memoryview) -> None:
        self.view = view
        self.base = 0
        self.budget = budget()
        self._step = self.budget.step
        self._num_text = 0

    def unpack(self, form: str, at: int) -> tuple[int, ...]:
        self._step()
        return unpack_from(form, self.view, at)

    def take(self, at: int, size: int) -> bytes:
        if at < 0 or size < 0 or at + size > len(self.view):
            raise FormatError(f"a part of it would be at {at}..{at + size}, after its end")
        return bytes(self.view[at : at + size])

    def expect(self, signature: bytes, at: int) -> None:
        if self.take(at, 4) != signature:
            raise FormatError(f"{signature.decode()} is missing at {at}")

    def terminated(self, at: int, end: int) -> bytes:
        """Return a zero-terminated string."""
        size = 64
        while True:
            window = self.take(at, min(size, end - at, len(self.view) - at))
            stop = window.find(b"\0")
            if stop >= 0:
                return window[:stop]
            if len(window) < size or size > _MAX_NAME:
                raise FormatError("a name does not end")
            size *= 8

    def name(self, raw: bytes) -> str:
        self.count_text(len(raw))
        return raw.decode("utf-8", "surrogateescape")

    def count_text(self, size: int) -> None:
        self._num_text += size
        self.budget.hold(size)
        if self._num_text > MAX_TEXT:
            raise FormatError("it holds more text than a model's description needs")


def padded(size: int, step: int) -> int:
    return -(-size // step) * step
