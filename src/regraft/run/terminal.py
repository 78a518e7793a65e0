"""Output that people may stop reading: a closed terminal or a pipe whose reader has gone ends no run."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any, TextIO, cast

__all__ = ["drop_stdout", "forgiving", "open_missing_streams"]


class _Forgiving:
    """A text stream whose failed writes are dropped; everything else is the stream's own."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._failed = False

    def write(self, text: str) -> int:
        if not self._failed:
            try:
                return self._stream.write(text)
            except (OSError, ValueError):  # ValueError: somebody closed it
                self._failed = True
        return len(text)

    def flush(self) -> None:
        if not self._failed:
            try:
                self._stream.flush()
            except (OSError, ValueError):
                self._failed = True

    def isatty(self) -> bool:
        try:
            return not self._failed and self._stream.isatty()
        except ValueError:
            return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def forgiving(stream: TextIO | None) -> TextIO:
    """Return the stream, with writes that never raise: after the first that fails, everything is dropped.

    Args:
        stream: Such as `sys.stderr`; None, as Python has it where the descriptor is closed, drops everything.
    """
    if isinstance(stream, _Forgiving):
        return cast("TextIO", stream)
    return cast("TextIO", _Forgiving(open(os.devnull, "w", encoding="utf-8") if stream is None else stream))


def drop_stdout() -> None:
    """Drop the rest of the buffer of stdout; Python would fail on it again at its end."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def open_missing_streams() -> None:
    """Open stdin, stdout and stderr on the null device where the command was started without them.

    Otherwise the next file that is opened gets their numbers, and what libraries print goes into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number, this one
    if sys.stdin is None:
        sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)
    if sys.stdout is None:
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    if sys.stderr is None:
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", closefd=False)
