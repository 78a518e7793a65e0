"""Signals: the first one asks for a stop at the next safe place, a second SIGINT stops at once.

SIGHUP, which a terminal sends when it is closed, counts like SIGTERM, unless the command was started with `nohup`.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType

from regraft.errors import StoppedError
from regraft.machine.processes import num_local_processes

__all__ = ["StopFlag", "signal_name", "stop_as_error"]

_IMPATIENT_SECONDS = 5.0
_NAMES = {1: "SIGHUP (the terminal was closed)", signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}


def signal_name(exit_code: int) -> str:
    """Return the display name of the signal that stopped a run, from its exit code."""
    return _NAMES.get(exit_code - 128, f"signal {exit_code - 128}")


def _caught() -> list[int]:
    """Return the signals that stop a run here: those of this system, without a SIGHUP that `nohup` has switched off."""
    hangups = [getattr(signal, "SIGHUP")] if hasattr(signal, "SIGHUP") else []  # noqa: B009 - Windows has none
    return [
        signal.SIGINT,
        signal.SIGTERM,
        *(number for number in hangups if signal.getsignal(number) != signal.SIG_IGN),
    ]


class StopFlag:
    """Open a context in which SIGINT, SIGTERM and SIGHUP set a flag instead of ending the process.

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
            for number in _caught():
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
    """Return the seconds in which a second SIGINT may be the first, forwarded by the launcher of several processes."""
    return 0.5 if num_local_processes() > 1 else 0.0


@contextmanager
def stop_as_error(what: str, next_step: str) -> Iterator[None]:
    """Open a context in which such a signal raises StoppedError at once, for work that needs no state of its own.

    Args:
        what: What was going on, as the start of the message.
        next_step: What to type to do it again.
    """

    def on_signal(number: int, frame: FrameType | None) -> None:
        code = 128 + number
        raise StoppedError(f"{what} was stopped by {signal_name(code)}.", "", next_step, exit_code=code)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, on_signal) for number in _caught()}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
