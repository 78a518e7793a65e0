"""What is said of the time that is left: within a phase it hardly rises, and between two estimates it counts down."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["Promise"]

_RISE, _RISE_SECONDS = 1.2, 5.0  # by how much it may rise from one estimate to the next
_STANDS = 10.0  # seconds for which an estimate counts down before another is made, and without any at first


class Promise:
    """The last estimate that was told, and when: seconds since the run began, and seconds that were left."""

    def __init__(self) -> None:
        self._told: tuple[float, float] | None = None

    def tell(self, at: float, left: float, *, may_jump: bool) -> str:
        """Return an estimate as text, and remember it; one that may not jump rises a little at most."""
        if self._told is not None and not may_jump:
            before, promised = self._told
            left = min(left, _RISE * max(promised - (at - before), 0) + _RISE_SECONDS)
        self._told = (at, left)
        return _in_words(left)

    def count_down(self, at: float, estimate: Callable[[], str]) -> str:
        """Return what is left of the last estimate as text; a new one where that is old, "" where it is too early."""
        if self._told is None:
            return "" if at < _STANDS else estimate()
        before, promised = self._told
        return estimate() if at - before >= _STANDS else _in_words(max(promised - (at - before), 0))


def _in_words(seconds: float) -> str:
    return f"about {int(seconds) // 60}:{int(seconds) % 60:02d} remaining"
