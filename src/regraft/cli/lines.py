"""Lines in and out: paths on stdin, and texts that stay on one line of a table."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

__all__ = ["lines_of_stdin", "one_line"]

_BREAKS = "\x7f\x85\u2028\u2029"


def lines_of_stdin() -> Iterator[str]:
    """The paths on stdin, one a line; names that are no UTF-8 stay the bytes that they are."""
    for line in sys.stdin.buffer:
        path = line.rstrip(b"\r\n")
        if path.strip():
            yield os.fsdecode(path)


def one_line(text: str) -> str:
    """A text that neither breaks the line nor the columns."""
    return "".join(repr(sign)[1:-1] if ord(sign) < 32 or sign in _BREAKS else sign for sign in text)
