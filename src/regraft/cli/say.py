"""Lines for people on stdout and stderr: whatever names in files hold, they steer no terminal."""

from __future__ import annotations

import logging
import sys
import time

import typer

from regraft.run.invocation import as_typed
from regraft.visible import visible

__all__ = ["Patience", "say"]

_LINE_SECONDS = 10.0


def say(text: str, *, err: bool = False) -> None:
    """Print lines for people; what names of files, classes and layers hold beside plain text is spelt out."""
    typer.echo(visible(as_typed(text), keep="\n"), err=err)


class Patience:
    """A line on stderr every ten seconds: of how many images something is done.

    Args:
        what: What is done, as in `decoding 12/40 images`.
    """

    def __init__(self, what: str) -> None:
        self._what, self._next = what, time.monotonic() + _LINE_SECONDS

    def __call__(self, done: int, total: int) -> None:
        if time.monotonic() >= self._next and logging.getLogger("regraft").isEnabledFor(logging.INFO):
            self._next = time.monotonic() + _LINE_SECONDS
            print(f"{self._what} {done}/{total} images", file=sys.stderr, flush=True)
