"""Paths on stdin, one a line."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

__all__ = ["lines_of_stdin"]


def lines_of_stdin() -> Iterator[str]:
    """Yield the paths on stdin, one a line; names that are no UTF-8 stay the bytes that they are."""
    for line in sys.stdin.buffer:
        path = line.rstrip(b"\r\n")
        if path.strip():
            yield os.fsdecode(path)
