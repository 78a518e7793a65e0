"""SIGTERM and SIGHUP end a command as Ctrl-C does: what is half written is removed on the way out."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

__all__ = ["Stopped", "stops_raised"]


class Stopped(KeyboardInterrupt):
    """A signal that ends programs has arrived.

    Attributes:
        exit_code: What shells show of a program that it has ended.
    """

    def __init__(self, number: int) -> None:
        self.exit_code = 128 + number
        super().__init__(f"Stopped by {signal.Signals(number).name}")


@contextmanager
def stops_raised() -> Iterator[None]:
    """Open a context in which these signals raise `Stopped`, unless they are ignored (`nohup`) or already handled."""
    numbers = [number for number in (signal.SIGTERM, getattr(signal, "SIGHUP", None)) if number is not None]
    is_main = threading.current_thread() is threading.main_thread()  # Python has no signals in others
    ours = [number for number in numbers if is_main and signal.getsignal(number) == signal.SIG_DFL]
    for number in ours:
        signal.signal(number, _raise)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def _raise(number: int, frame: FrameType | None) -> None:
    signal.signal(number, signal.SIG_IGN)  # a second one would stop the removing
    raise Stopped(number)
