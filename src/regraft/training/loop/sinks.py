"""Where a run's news goes: metrics.jsonl, log.txt, status.json, and a bar or plain lines on stderr.

Only metrics.jsonl and status.json may stop a run when they cannot be written; the rest never does.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from regraft import commit
from regraft.evaluation.tasks import main_of, told
from regraft.run.folder import RunFolder
from regraft.run.invocation import as_typed
from regraft.run.records import append_metrics, candidate_name, finite, kind_of_candidate
from regraft.run.terminal import forgiving
from regraft.training.progress.phases import Phase, Work
from regraft.training.progress.promise import Promise
from regraft.training.progress.remaining import Remaining
from regraft.visible import visible

if TYPE_CHECKING:
    from regraft.training.loop.progress_bar import ProgressBar

__all__ = ["Sinks"]

_LINE_SECONDS = 10.0
_LOSSES = ("train_loss", "val_loss", "val_calibrated_loss")
_MUCH_WAITING = 0.2  # of an epoch's time; beyond, loading is called the bottleneck
_LOST_SECONDS = 1.0  # of an epoch; less is not worth a word


class Sinks:
    """Progress of a whole run, in units of one image that passes once through the network; how long the rest takes is
    told by the pace of each phase.

    Args:
        run: The run folder.
        show: Whether to write to stderr at all.
        write: Whether to write to the run folder; of several processes only the main one does.
        held: Whether to keep what goes there until `release`: a run that is resumed may yet be refused.
    """

    def __init__(self, run: RunFolder, *, show: bool = True, write: bool = True, held: bool = False) -> None:
        self.run = run
        self.show = show and write
        self._write = write
        self._log = _Log(run, held=held)
        self.total = 1.0
        self.done = 0.0
        self._start = time.monotonic()
        self._last_line = self._start
        self._bar: ProgressBar | None = None
        self._promise = Promise()
        self._remaining = Remaining({})
        self._phase: Phase | None = None
        self._aside = self._told_at = 0.0
        self._loading = _Loading()

    def __enter__(self) -> Sinks:
        if self.show and forgiving(sys.stderr).isatty() and os.environ.get("TERM") != "dumb":
            from regraft.training.loop.progress_bar import ProgressBar

            self._bar = ProgressBar()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close(self.done, self.total)
            self._bar = None

    @property
    def seconds(self) -> float:
        """Seconds since the run, or its resumption, began."""
        return time.monotonic() - self._start

    def plan(self, work: Mapping[Phase, Work] | float) -> None:
        """Set the work of the whole run, by phase where they are known."""
        phases = work if isinstance(work, Mapping) else {}
        total = sum(each.units for each in phases.values()) if isinstance(work, Mapping) else work
        self.total = max(total, 1.0)
        self._remaining = Remaining(phases)

    def enter(self, phase: Phase) -> None:
        """Count the work that follows to a phase."""
        self._phase = phase

    def advance(self, units: float, doing: str, loss: float | None = None) -> None:
        """Add finished work to the progress, with its name and the loss of a step."""
        self.done += units
        if self._phase is not None:
            self.total += self._remaining.advance(self._phase, units, self.seconds - self._told_at)
        self.mark()
        if self._bar is not None:
            self._bar.draw(self.done, self.total, doing, loss, self._left_now)
        elif self.show and time.monotonic() - self._last_line > _LINE_SECONDS:
            self.line(f"{doing}, {min(self.done / self.total, 1):.0%} of the run, {self._left()}", log=False)

    def mark(self) -> None:
        """Begin to measure here: what has passed since the last work is no pace of the next."""
        self._told_at = self.seconds

    def skip(self, units: float, phase: Phase) -> None:
        """Take out work of a phase that was done before."""
        self.total = max(self.total - self._remaining.skip(phase, units), self.done, 1.0)

    def end(self, stage: str) -> None:
        """Take out the rest of a stage, which turned out not to be needed (early stopping)."""
        self.total = max(self.total - self._remaining.end(stage), self.done, 1.0)

    def line(self, text: str, *, log: bool = True) -> None:
        """Write one line for people, on stderr and in log.txt."""
        self._last_line = time.monotonic()
        text = visible(text)
        if log and self._write:
            self._log.add(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}")
        text = as_typed(text)
        if self._bar is not None:
            self._bar.line(text)
        elif self.show:
            print(text, file=forgiving(sys.stderr), flush=True)

    def release(self) -> None:
        """Write what was held back, and hold nothing back any more."""
        self._log.release()

    def warn(self, text: str) -> None:
        """Write one line that people have to see: without progress it goes to the log of the library."""
        self.line(text)
        if self._write and not self.show:
            logging.getLogger("regraft").warning(text)

    def epoch(self, record: dict[str, Any]) -> int:
        """Record an epoch; returns the size of metrics.jsonl afterwards."""
        if not self._write:
            return 0
        size = append_metrics(self.run.metrics, {"kind": "epoch", **record})
        if "l2" in record:  # solving takes time and is no work of images, which the rest of the run consists of
            self._aside += self.seconds - self._told_at
            self.mark()
        self.line("  ".join([*_of_epoch(record), self._left()]))
        if (hint := self._loading.noted(record)) is not None:
            self.line(hint)
        return size

    def candidate(self, record: dict[str, Any]) -> int:
        """Record a network made of a stage's weights at its end; returns the size of metrics.jsonl."""
        if not self._write:
            return 0
        self.line("  ".join([f"{record['stage']} {candidate_name(record)}", *_figures(record)]))
        return append_metrics(self.run.metrics, {"kind": kind_of_candidate(record), **record})

    def tell_bottleneck(self, stage: str) -> None:
        """Write where the time of a stage's epochs went; none where it was not measured."""
        if (text := self._loading.bottleneck(stage)) is not None:
            self.line(text)

    def status(self, state: str, **facts: Any) -> None:
        """Replace status.json."""
        if not self._write or self._log.is_held:
            return
        commit.write_json(self.run.status, finite({"state": state, "seconds": round(self.seconds, 3), **facts}))

    def _left(self) -> str:
        if self.done <= 0:
            return "time remaining unknown"
        known = self._remaining.seconds()
        alike = (self.seconds - self._aside) / self.done * max(self.total - self.done, 0)
        return self._promise.tell(
            self.seconds, alike if known is None else known, may_jump=self._remaining.is_new_ground
        )

    def _left_now(self) -> str:
        """Return the remaining time for the progress bar."""
        return self._promise.count_down(self.seconds, self._left)


def _of_epoch(record: Mapping[str, Any]) -> list[str]:
    """Return what is said of an epoch, or of a solution, in parts."""
    if "l2" in record:
        parts = [f"{record['stage']} solution {record['epoch']} (l2 {record['l2']:g})"]
    else:
        parts = [f"{record['stage']} epoch {record['epoch']}/{record['epochs']}"]
    parts += _figures(record)
    if record.get("images_per_second"):
        parts.append(f"{record['images_per_second']:.0f} images/s")
    if record.get("data_wait") is not None:
        parts.append(f"data wait {record['data_wait']:.0%}")
    return parts


def _figures(record: Mapping[str, Any]) -> list[str]:
    """Return the losses of a record and its main metric as text."""
    main = main_of(record)
    losses = [f"{key} {record[key]:.4f}" for key in _LOSSES if record.get(key) is not None]
    return losses if main is None else [*losses, f"{main} {told(main, record[main])}"]


class _Log:
    """The lines of log.txt; held back where the run may yet be refused."""

    def __init__(self, run: RunFolder, *, held: bool) -> None:
        self._path = run.log
        self._held: list[str] | None = [] if held else None

    @property
    def is_held(self) -> bool:
        return self._held is not None

    def add(self, text: str) -> None:
        if self._held is not None:
            self._held.append(text)
            return
        with contextlib.suppress(Exception):
            commit.append_line(self._path, text)

    def release(self) -> None:
        held, self._held = self._held or [], None
        for text in held:
            self.add(text)


class _Loading:
    """How much of each stage's time is spent waiting for images."""

    def __init__(self) -> None:
        self._hinted: set[str] = set()
        self._spent: dict[str, tuple[float, float]] = {}

    def noted(self, record: Mapping[str, Any]) -> str | None:
        """Add up an epoch; once in a stage, a line where waiting for images costs much."""
        share, stage = record.get("data_wait"), record["stage"]
        if share is None:
            return None
        seconds, waited = self._spent.get(stage, (0.0, 0.0))
        self._spent[stage] = (seconds + record["seconds"], waited + share * record["seconds"])
        if share <= _MUCH_WAITING or share * record["seconds"] <= _LOST_SECONDS or stage in self._hinted:
            return None
        self._hinted.add(stage)
        return (
            f"{stage}: {share:.0%} of the time spent waiting for images; "
            "`--cache ram` or `--cache disk` decodes them once, a smaller image_size and less augmentation help"
        )

    def bottleneck(self, stage: str) -> str | None:
        """Return a line that says where the time of a stage's epochs went; None where it was not measured."""
        seconds, waited = self._spent.get(stage, (0.0, 0.0))
        if seconds <= 0:
            return None
        share = waited / seconds
        what = "data-loading" if share > 0.5 else "compute"
        return f"{stage}: {what} bound ({share:.0%} of the time spent waiting for images)"
