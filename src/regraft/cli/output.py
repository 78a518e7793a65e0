"""What `train` and `resume` say on stdout: lines for people, or one JSON object a line for programs (`--json`)."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from regraft import commit
from regraft.errors import RegraftError, StoppedError
from regraft.machine.processes import is_main_process
from regraft.run.invocation import as_typed
from regraft.run.records import finite, kind_of_candidate
from regraft.run.terminal import drop_stdout
from regraft.training.callbacks import Callback
from regraft.visible import visible

__all__ = ["Output"]


class Output:
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
        """Print a line for people."""
        if not self.as_json:
            print(visible(as_typed(text), keep="\n"), flush=True)

    def end(self, **facts: Any) -> None:
        """Write the last object, of kind `end`."""
        if self.as_json:
            _print({"kind": "end", "state": "finished", **facts})

    @contextmanager
    def ended(self) -> Iterator[None]:
        """Write an error as the last object too; it still goes to stderr and the exit code as ever."""
        try:
            yield
        except RegraftError as error:
            if self.as_json and is_main_process():
                state = "stopped" if isinstance(error, StoppedError) else "failed"
                _print({"kind": "end", "state": state, "exit_code": error.exit_code, "message": str(error)})
            raise


class _Lines(Callback):
    """The run's start, its epochs, and the networks made of them."""

    def on_run_start(self, session: Any) -> None:
        stages = [stage.name for stage in session.plan]
        place = {"stage": stages[min(session.progress.stage, len(stages) - 1)], "step": session.progress.step}
        _print({"kind": "start", "run": str(session.run_folder.path), "stages": stages, **place})

    def on_epoch_end(self, stage: Any, record: Mapping[str, Any]) -> None:
        _print({"kind": "epoch", "run": str(stage.session.run_folder.path), **record})

    def on_candidate(self, stage: Any, record: Mapping[str, Any]) -> None:
        _print({"kind": kind_of_candidate(record), "run": str(stage.session.run_folder.path), **record})


def _print(record: Mapping[str, Any]) -> None:
    try:
        print(commit.as_json(finite(dict(record))), flush=True)
    except BrokenPipeError:
        drop_stdout()
