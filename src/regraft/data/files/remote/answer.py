"""What is said of a file behind an address, and why there is none."""

from __future__ import annotations

import re
from dataclasses import dataclass

__all__ = ["Remote", "RemoteError", "TryAgainError", "scheme_of"]

_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*):/+", re.IGNORECASE)


class RemoteError(Exception):
    """A file cannot be had: what a server, or the way to it, said last.

    Args:
        reason: What went wrong.
        is_gone: Whether there is no such file.
    """

    def __init__(self, reason: str, *, is_gone: bool = False) -> None:
        super().__init__(reason)
        self.is_gone = is_gone


class TryAgainError(Exception):
    """A file did not come, and may the next time.

    Args:
        reason: What went wrong.
        wait: How long the server asks to be left alone, in seconds.
    """

    def __init__(self, reason: str, wait: float | None = None) -> None:
        super().__init__(reason)
        self.wait = wait


@dataclass(frozen=True)
class Remote:
    """What a server says of a file.

    Attributes:
        size: Its size in bytes; -1 where it is not said.
        mark: Its entity tag, checksum or time, whatever changes with it; empty where nothing is said.
    """

    size: int
    mark: str


def scheme_of(url: str) -> str:
    """Return the scheme of an address, in small letters."""
    match = _SCHEME.match(url)
    return match[1].lower() if match else ""
