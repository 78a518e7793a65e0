"""Where a run's news goes: metrics.jsonl, log.txt, status.json, and a bar or plain lines on stderr.

Only metrics.jsonl and status.json may stop a run when they cannot be written; the rest never does.
"""

from __future__ import annotations

import contextlib
import logging
import sys
import time
from types import TracebackType
from typing import Any

from regraft import commit
from regraft.evaluate.tasks import main_of, told
from regraft.run.folder import RunFolder
from regraft.run.records import append_metrics, finite

__all__ = ["Sinks"]

_LINE_SECONDS = 10.0


class Sinks:
    """Progress of a whole run, in units of one image that passes once through the network.

    Args:
        run: The run folder.
        show: Whether to write to stderr at all.
        write: Whether to write to the run folder; of several processes only the main one does.
    """

    def __init__(self, run: RunFolder, *, show: bool = True, write: bool = True) -> None:
        self.run = run
        self.show = show and write
        self._write = write
        self.total = 1.0
        self.done = 0.0
        self._start = time.monotonic()
        self._last_line = self._start
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Sinks:
        if self.show and sys.stderr.isatty():
            self._open_bar()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    @property
    def seconds(self) -> float:
        """Seconds since the run, or its resumption, began."""
        return time.monotonic() - self._start

    def plan(self, total: float) -> None:
        """Set the work of the whole run."""
        self.total = max(total, 1.0)

    def advance(self, units: float, doing: str) -> None:
        """Take in finished work and what it is part of."""
        self.done += units
        if self._bar is not None:
            self._bar.update(self._task, total=self.total, completed=self.done, description=doing)
        elif self.show and time.monotonic() - self._last_line > _LINE_SECONDS:
            self.line(f"{doing}, {min(self.done / self.total, 1):.0%} of the run, {self._left()}", log=False)

    def skip(self, units: float) -> None:
        """Take out work that turned out not to be needed (early stopping)."""
        self.total = max(self.total - units, self.done, 1.0)

    def line(self, text: str, *, log: bool = True) -> None:
        """One line for people, on stderr and in log.txt."""
        self._last_line = time.monotonic()
        if log and self._write:
            with contextlib.suppress(Exception):
                commit.append_line(self.run.log, f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}")
        if self._bar is not None:
            self._bar.console.print(text, highlight=False, markup=False, soft_wrap=True)
        elif self.show:
            print(text, file=sys.stderr, flush=True)

    def warn(self, text: str) -> None:
        """One line that people have to see: without progress it goes to the log of the library."""
        self.line(text)
        if self._write and not self.show:
            logging.getLogger("regraft").warning(text)

    def epoch(self, record: dict[str, Any]) -> int:
        """Record an epoch; returns the size of metrics.jsonl afterwards."""
        if not self._write:
            return 0
        size = append_metrics(self.run.metrics, {"kind": "epoch", **record})
        if "l2" in record:
            parts = [f"{record['stage']} solution {record['epoch']} (l2 {record['l2']:g})"]
        else:
            parts = [f"{record['stage']} epoch {record['epoch']}/{record['epochs']}"]
        parts += [f"{key} {record[key]:.4f}" for key in ("train_loss", "val_loss") if record.get(key) is not None]
        if (main := main_of(record)) is not None:
            parts.append(f"{main} {told(main, record[main])}")
        if record.get("images_per_second"):
            parts.append(f"{record['images_per_second']:.0f} images/s")
        self.line("  ".join(parts) + f"  {self._left()}")
        return size

    def status(self, state: str, **facts: Any) -> None:
        """Replace status.json."""
        if not self._write:
            return
        commit.write_json(self.run.status, finite({"state": state, "seconds": round(self.seconds, 3), **facts}))

    def _left(self) -> str:
        if self.done <= 0:
            return "time left unknown"
        left = self.seconds / self.done * max(self.total - self.done, 0)
        return f"about {int(left) // 60}:{int(left) % 60:02d} left"

    def _open_bar(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            TextColumn("left of the run"),
            console=Console(stderr=True),
            speed_estimate_period=60,
        )
        self._task = self._bar.add_task("starting", total=self.total)
        self._bar.start()
