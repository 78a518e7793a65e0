"""The bar at the bottom of a terminal that shows how far a run has come."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from regraft.run.terminal import forgiving
from regraft.visible import visible

__all__ = ["ProgressBar"]

_SECONDS = 0.1  # drawing the bar at every step would cost more than some steps


class ProgressBar:
    """A bar on stderr, from when it is made until it is closed."""

    def __init__(self) -> None:
        self._progress = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[news]}"),
            TextColumn("{task.fields[left]}"),
            console=Console(file=forgiving(sys.stderr)),
        )
        self._task = self._progress.add_task("starting", total=1.0, news="", left="")
        self._drawn_at = 0.0
        self._progress.start()

    def line(self, text: str) -> None:
        """Print a line above the bar."""
        self._progress.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def draw(self, done: float, total: float, doing: str, loss: float | None, left: Callable[[], str]) -> None:
        """Show the work that is done of all of it; a call that comes too early after the one before draws nothing."""
        if time.monotonic() - self._drawn_at <= _SECONDS:
            return
        self._drawn_at = time.monotonic()
        news = "" if loss is None else f"loss {loss:.4f}"  # of what is done now, not of the stage before
        self._progress.update(
            self._task, total=total, completed=done, description=visible(doing), left=left(), news=news, refresh=True
        )

    def close(self, done: float, total: float) -> None:
        """Draw it a last time, and end it."""
        self._progress.update(self._task, total=total, completed=done, refresh=True)
        self._progress.stop()
