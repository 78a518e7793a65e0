"""Signals: the first one asks for a stop at the next safe place, a second SIGINT stops at once."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

from regraft.errors import StoppedError
from regraft.run.processes import num_local_processes

__all__ = ["StopFlag", "stop_as_error"]

_IMPATIENT_SECONDS = 5.0


class StopFlag:
    """A context in which SIGINT and SIGTERM set a flag instead of ending the process.

    Every loop of a run asks `requested`. Outside the main thread, where Python has no signals, it is never set.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._since = 0.0
        self._previous: dict[int, signal._HANDLER] = {}

    @property
    def requested(self) -> bool:
        return self.signal is not None

    @property
    def exit_code(self) -> int:
        return 128 + (self.signal or signal.SIGINT)

    def __enter__(self) -> StopFlag:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        waited = time.monotonic() - self._since
        again = self.requested and _forwarded_seconds() <= waited < _IMPATIENT_SECONDS
        if number == signal.SIGINT and again:
            raise KeyboardInterrupt
        self.signal, self._since = number, time.monotonic()


def _forwarded_seconds() -> float:
    """For so long a second SIGINT may be the first one, sent on by the launcher of several processes."""
    return 0.5 if num_local_processes() > 1 else 0.0


@contextmanager
def stop_as_error(what: str, next_step: str) -> Iterator[None]:
    """A context in which SIGINT and SIGTERM raise StoppedError at once, for work that needs no state of its own.

    Args:
        what: What was going on, as the start of the message.
        next_step: What to type to do it again.
    """

    def on_signal(number: int, frame: FrameType | None) -> None:
        name = "SIGTERM" if number == signal.SIGTERM else "Ctrl-C"
        raise StoppedError(f"{what} was stopped by {name}.", "Nothing is lost.", next_step, exit_code=128 + number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, on_signal) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
