"""Where a run's news goes: metrics.jsonl, log.txt, status.json, and a bar or plain lines on stderr.

Only metrics.jsonl and status.json may stop a run when they cannot be written; the rest never does.
"""

from __future__ import annotations

import contextlib
import logging
import os
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
_BAR_SECONDS = 0.1  # drawing the bar at every step would cost more than some steps
_MUCH_WAITING = 0.2  # of an epoch's time; beyond, loading is called the bottleneck
_LOST_SECONDS = 1.0  # of an epoch; less is not worth a word


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
        self._drawn_at = 0.0
        self._hinted: set[str] = set()
        self._spent: dict[str, tuple[float, float]] = {}

    def __enter__(self) -> Sinks:
        if self.show and sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
            self._open_bar()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.update(self._task, total=self.total, completed=self.done, refresh=True)
            self._bar.stop()
            self._bar = None

    @property
    def seconds(self) -> float:
        """Seconds since the run, or its resumption, began."""
        return time.monotonic() - self._start

    def plan(self, total: float) -> None:
        """Set the work of the whole run."""
        self.total = max(total, 1.0)

    def advance(self, units: float, doing: str, loss: float | None = None) -> None:
        """Take in finished work, what it is part of, and the loss of a step."""
        self.done += units
        if self._bar is not None:
            if time.monotonic() - self._drawn_at > _BAR_SECONDS:
                self._draw(doing, loss)
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
        if record.get("data_wait") is not None:
            parts.append(f"data wait {record['data_wait']:.0%}")
        self.line("  ".join(parts) + f"  {self._left()}")
        self._watch_loading(record)
        return size

    def _watch_loading(self, record: dict[str, Any]) -> None:
        """Add up what a stage waits for; once in a stage, say that waiting for images costs much."""
        share, stage = record.get("data_wait"), record["stage"]
        if share is None:
            return
        seconds, waited = self._spent.get(stage, (0.0, 0.0))
        self._spent[stage] = (seconds + record["seconds"], waited + share * record["seconds"])
        if share > _MUCH_WAITING and share * record["seconds"] > _LOST_SECONDS and stage not in self._hinted:
            self._hinted.add(stage)
            self.line(
                f"{stage}: {share:.0%} of the time goes to waiting for images; "
                "`--cache ram` or `--cache disk` decodes them once, a smaller image_size and less augmentation help"
            )

    def tell_bottleneck(self, stage: str) -> None:
        """A line that says where the time of a stage's epochs went; none where it was not measured."""
        seconds, waited = self._spent.get(stage, (0.0, 0.0))
        if seconds > 0:
            share = waited / seconds
            what = "loading images" if share > 0.5 else "computing"
            self.line(f"{stage}: {what} is the bottleneck ({share:.0%} of the time waited for images)")

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

    def _draw(self, doing: str, loss: float | None) -> None:
        self._drawn_at = time.monotonic()
        news = {} if loss is None else {"news": f"loss {loss:.4f}"}
        self._bar.update(self._task, total=self.total, completed=self.done, description=doing, **news)

    def _open_bar(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TextColumn("{task.fields[news]}"),
            TimeRemainingColumn(),
            TextColumn("left of the run"),
            console=Console(stderr=True),
            speed_estimate_period=60,
        )
        self._task = self._bar.add_task("starting", total=self.total, news="")
        self._bar.start()
