"""What `train` and `resume` say on stdout: lines for people, or one JSON object a line for programs (`--json`)."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import typer

from regraft import commit
from regraft.errors import RegraftError
from regraft.run.processes import is_main_process
from regraft.run.records import finite
from regraft.train.callbacks import Callback

__all__ = ["News"]


class News:
    """Where the results of a command go.

    Args:
        as_json: One JSON object a line on stdout, instead of text.
    """

    def __init__(self, *, as_json: bool) -> None:
        self.as_json = as_json
        self.callbacks: list[Callback] = [_Lines()] if as_json else []

    @property
    def shows_progress(self) -> bool:
        """Whether progress goes to stderr, which it does without `--quiet`."""
        return logging.getLogger("regraft").isEnabledFor(logging.INFO)

    def say(self, text: str) -> None:
        """A line for people."""
        if not self.as_json:
            typer.echo(text)

    def end(self, **facts: Any) -> None:
        """The last object, of kind `end`."""
        if self.as_json:
            _print({"kind": "end", "state": "finished", **facts})

    @contextmanager
    def ended(self) -> Iterator[None]:
        """An error becomes the last object too, and goes on to stderr and the exit code as ever."""
        try:
            yield
        except RegraftError as error:
            if self.as_json and is_main_process():
                state = "stopped" if error.exit_code in (130, 143) else "failed"
                _print({"kind": "end", "state": state, "exit_code": error.exit_code, "message": str(error)})
            raise


class _Lines(Callback):
    """The run's start and its epochs."""

    def on_run_start(self, session: Any) -> None:
        stages = [stage.name for stage in session.plan]
        place = {"stage": stages[min(session.progress.stage, len(stages) - 1)], "step": session.progress.step}
        _print({"kind": "start", "run": str(session.run_folder.path), "stages": stages, **place})

    def on_epoch_end(self, stage: Any, record: Mapping[str, Any]) -> None:
        _print({"kind": "epoch", "run": str(stage.session.run_folder.path), **record})


def _print(record: Mapping[str, Any]) -> None:
    """A reader that has gone away ends the output, not the run."""
    try:
        print(commit.as_json(finite(dict(record))), flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
