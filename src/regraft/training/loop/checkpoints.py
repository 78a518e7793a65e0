"""When the state of a run is saved, and how the run ends at a safe place when a signal or a callback asks for it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import Optimizer

from regraft.errors import StoppedError
from regraft.plan.freezing.audit import Snapshot
from regraft.plan.freezing.freeze import Freeze
from regraft.run.folder import RunFolder
from regraft.run.invocation import typed_path
from regraft.training.callbacks import Callbacks
from regraft.training.checkpoint.saver import Saver
from regraft.training.checkpoint.state import Progress
from regraft.training.checkpoint.stop import StopFlag, signal_name
from regraft.training.engine import Engine
from regraft.training.objective.average import Average

__all__ = ["Checkpoints", "StageSaver", "StageState", "stopped"]

_SAVE_SECONDS = 600.0


@dataclass
class Checkpoints:
    """The checkpoints of a run, and what may end it.

    Attributes:
        run_folder: Where everything is written.
        engine: Which processes share the run; all of them call these methods at the same places.
        saver: What writes checkpoints.
        stop: The signal flag.
        callbacks: Whom to notify; one that has failed ends the run.
        save_steps: Save at every so many steps as well; None saves at epoch ends and every ten minutes.
    """

    run_folder: RunFolder
    engine: Engine
    saver: Saver
    stop: StopFlag
    callbacks: Callbacks
    save_steps: int | None = None

    def wait(self) -> None:
        """Return, in every process, when the last checkpoint is on the disk; raises what its writing met."""
        self.engine.from_main(self.saver.wait)

    def raise_failure(self) -> None:
        """Raise what a callback raised, in every process, once the state is on the disk."""
        self.engine.from_main(self._raise_failure_here)

    def _raise_failure_here(self) -> None:
        if self.callbacks.has_failed:
            self.saver.wait()
            self.callbacks.raise_failure(str(self.run_folder.path))

    def stop_requested(self) -> bool:
        """Return whether a signal has come, to any process."""
        return self.engine.any(self.stop.requested)

    def stopped(self) -> StoppedError:
        """Return the error that ends the run on a signal, once the state is on the disk."""
        self.wait()
        return stopped(self.run_folder, self.stop)

    def stop_if_asked(self) -> None:
        """Raise StoppedError when a signal has come."""
        if self.stop_requested():
            raise self.stopped()


def stopped(run: RunFolder, stop: StopFlag) -> StoppedError:
    """Return the error that ends a run on a signal, with the command to resume it."""
    return StoppedError(
        f"Interrupted by {signal_name(stop.exit_code)}; checkpoint of {str(run.path)!r} saved.",
        "",
        f"resume with `regraft resume {typed_path(run.path)}`; it ends in the same result",
        exit_code=stop.exit_code,
    )


@dataclass
class StageState:
    """What a stage changes and what it holds still.

    Attributes:
        frozen: The names of what trains and of what is frozen.
        optimizer: Over exactly what trains.
        groups: `group_values` of the optimizer before its first step.
        snapshot: What the audit at the stage's end counts from.
        average: The moving average of the weights, where the stage keeps one.
    """

    frozen: Freeze
    optimizer: Optimizer
    groups: Mapping[str, Mapping[str, Any]]
    snapshot: Snapshot
    average: Average | None = None


class StageSaver:
    """Saves a stage's state while it trains.

    Args:
        checkpoints: Those of the run.
        model: The model.
        state: What the stage changes.
        progress: Where the run stands.
        engine: The stage's.

    Attributes:
        has_saved: Whether anything of the stage has been saved by this process.
    """

    def __init__(
        self, checkpoints: Checkpoints, model: nn.Module, state: StageState, progress: Progress, engine: Engine
    ) -> None:
        self._checkpoints, self._model, self._state = checkpoints, model, state
        self._progress, self._engine = progress, engine
        self._saved_at = time.monotonic()
        self.has_saved = False

    def save(self) -> None:
        """Begin a checkpoint of this moment.

        Raises:
            RegraftError: A callback has failed; its error waited for the state to be saved.
        """
        checkpoints, state, progress = self._checkpoints, self._state, self._progress
        progress.scaler = self._engine.scaler_state()
        progress.callbacks = checkpoints.callbacks.state()
        average = state.average
        kept = {} if average is None else {"weights": average.averages, "extra": average.weights}
        self._engine.from_main(
            lambda: checkpoints.saver.save(self._model, state.optimizer, progress, groups=state.groups, **kept)
        )
        self._saved_at, self.has_saved = time.monotonic(), True
        checkpoints.raise_failure()

    def save_between_steps(self) -> None:
        """Save inside an epoch when asked to stop, at every `save_steps`, and after a long time without."""
        checkpoints = self._checkpoints
        every = checkpoints.save_steps
        due = every is not None and self._progress.step % every == 0
        late = time.monotonic() - self._saved_at > _SAVE_SECONDS
        lost, stop = checkpoints.saver.look(), checkpoints.stop.requested
        flags = self._engine.sum(due, late, stop, lost, checkpoints.callbacks.has_failed)
        due, late, asked, lost, failed = (num > 0 for num in flags)
        if lost:
            checkpoints.wait()
        if due or late or asked or failed:
            self.save()
        if asked:
            raise checkpoints.stopped()

    def stop_in_validation(self, *, saves: bool) -> None:
        """Handle a stop between the last step of an epoch and its record: the epoch's steps are saved, validation is
        not.
        """
        asked = self._checkpoints.stop_requested()
        if asked and saves:
            self.save()
        if asked:
            raise self._checkpoints.stopped()
