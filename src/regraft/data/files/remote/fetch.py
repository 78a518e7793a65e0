"""One file behind an address, as often asked for as it takes."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from regraft.data.files.remote import store
from regraft.data.files.remote.answer import Remote, RemoteError, TryAgainError, scheme_of

__all__ = ["fetch", "look"]

Result = TypeVar("Result")

_ATTEMPTS = 6
_WAIT_SECONDS, _LONGEST_WAIT = 0.5, 30.0


def fetch(url: str, most: int) -> tuple[bytes, Remote]:
    """Return the bytes of a file and what is said of it, after as many attempts as it takes.

    Args:
        url: Its address.
        most: The largest size that is taken.

    Raises:
        RemoteError: It is not there, may not be read, is too large, or does not come.
    """
    if scheme_of(url) in ("http", "https"):
        from regraft.data.files.remote import web  # with what speaks HTTP: a tenth of a second

        return _tried(lambda attempt: web.get(url, most, kept=attempt == 0))
    return _tried(lambda _: store.cat(url, most))


def look(url: str) -> Remote:
    """Return what a server says of a file over HTTP, without its bytes.

    Raises:
        RemoteError: It is not there, may not be read, or no answer comes.
    """
    from regraft.data.files.remote import web

    return _tried(lambda attempt: web.head(url, kept=attempt == 0))


def _tried(work: Callable[[int], Result]) -> Result:
    for attempt in range(_ATTEMPTS):
        try:
            return work(attempt)
        except TryAgainError as error:
            if attempt + 1 == _ATTEMPTS:
                raise RemoteError(f"{error} ({_ATTEMPTS} attempts)") from None
            wait = error.wait if error.wait is not None else _WAIT_SECONDS * 2**attempt * (0.5 + random.random())
            time.sleep(min(wait, _LONGEST_WAIT))
    raise RemoteError("was not tried")
