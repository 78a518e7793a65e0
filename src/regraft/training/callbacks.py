"""Who is told what happens in a run, and when: the callbacks of users, and the run's own loggers.

Both are told the same events. They differ in what an error of theirs does: a callback is part of what the user wants,
so its error ends the run (with the state saved); a logger only watches, so its error is said once and the run goes on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

from regraft import commit
from regraft.errors import RegraftError, SettingsError
from regraft.run.invocation import typed_path

if TYPE_CHECKING:
    from regraft.training.views import RunView, StageView

__all__ = ["Callback", "Callbacks"]


class Callback:
    """Something that watches a run. Every method does nothing here; write those that you need.

    Callbacks see the run and do not change it: a run is a function of its recipe, and resumes to the same bits. The one
    thing that a callback may ask for is the end of a stage (`stage.request_stop()`). docs/callbacks.md lists what
    `session` and `stage` have. An error in a method ends the run, after its state is saved.
    """

    def on_run_start(self, session: RunView) -> None:
        """Run once in a process, after decoding and before the first (or resumed) stage."""

    def on_stage_start(self, stage: StageView) -> None:
        """Run before a stage trains, once it is frozen and has its optimizer; again when it is resumed."""

    def on_step_end(self, stage: StageView, loss: float) -> None:
        """Run after an optimizer step; `loss` is the mean over its batch."""

    def on_epoch_end(self, stage: StageView, record: Mapping[str, Any]) -> None:
        """Run after an epoch was validated; `record` is its line of metrics.jsonl."""

    def on_candidate(self, stage: StageView, record: Mapping[str, Any]) -> None:
        """Run after a network made of the stage's weights at its end (`soup`, `interpolate`) was validated; `record` is
        its line of metrics.jsonl.
        """

    def on_checkpoint(self, session: RunView) -> None:
        """Run when a checkpoint is on the disk; it is written behind the loop, so steps may have been taken since."""

    def on_stage_end(self, stage: StageView) -> None:
        """Run after the stage was audited."""

    def on_run_end(self, session: RunView) -> None:
        """Run after the model folder was written."""

    def state_dict(self) -> dict[str, Any]:
        """Return the state to restore on resume, as plain JSON data; asked for before each checkpoint."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load the state that `state_dict` gave when the resumed checkpoint was written; runs before `on_run_start`."""


@dataclass(frozen=True)
class _Failure:
    callback: Callback
    event: str
    error: Exception


class Callbacks:
    """Several callbacks as one, told in order, the loggers first; a context that closes the loggers at its end.

    Args:
        callbacks: The user's.

    Raises:
        SettingsError: Something that is no callback.
    """

    def __init__(self, callbacks: Sequence[Callback] = ()) -> None:
        _require_callbacks(callbacks)
        self._callbacks = list(callbacks)
        self._loggers: list[Callback] = []
        self._warn: Callable[[str], None] = lambda text: None
        self._failure: _Failure | None = None

    def add_loggers(self, loggers: Sequence[Callback], warn: Callable[[str], None]) -> None:
        """Add loggers; the error of one is passed to `warn`, and it is not called again."""
        self._loggers += loggers
        self._warn = warn

    def __enter__(self) -> Callbacks:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for logger in [*self._loggers]:
            if hasattr(logger, "close"):
                self._ask(logger, "close")

    @property
    def has_failed(self) -> bool:
        """Whether a callback of the user has raised; `raise_failure` tells, once the state is saved."""
        return self._failure is not None

    def tell(self, event: str, *arguments: Any) -> None:
        """Call the method `event` of every logger and callback; raises nothing."""
        for callback in [*self._loggers, *self._callbacks]:
            self._ask(callback, event, *arguments)

    def raise_failure(self, run: str) -> None:
        """Raise what a callback raised, named, with its traceback as the cause.

        Args:
            run: The run folder, for the text.

        Raises:
            RegraftError: A callback has failed.
        """
        if self._failure is None:
            return
        failure, self._failure = self._failure, None
        name, error = type(failure.callback).__qualname__, failure.error
        raise RegraftError(
            f"The callback {name} failed in {failure.event}: {type(error).__name__}: {error}.",
            f"the state of {run!r} is saved",
            f"correct the callback, then continue with `rg.resume({run!r}, callbacks=[...])`, "
            f"or without callbacks with `regraft resume {typed_path(run)}`",
        ) from error

    def state(self) -> dict[str, Any]:
        """Return the states of all callbacks and loggers for the checkpoint, by name."""
        states: dict[str, Any] = {}
        for name, callback in self._named():
            state = self._ask(callback, "state_dict")
            if state and self._is_json(callback, state):
                states[name] = state
        return states

    def load_state(self, states: Mapping[str, Any]) -> None:
        """Hand each callback and logger its own saved state."""
        for name, callback in self._named():
            if name in states:
                self._ask(callback, "load_state_dict", states[name])

    def _named(self) -> list[tuple[str, Callback]]:
        """Return loggers and callbacks by name: that of the class, numbered from the second of a class on."""
        named: dict[str, Callback] = {}
        for callback in [*self._loggers, *self._callbacks]:
            name = kind = type(callback).__qualname__
            number = 1
            while name in named:
                number += 1
                name = f"{kind}#{number}"
            named[name] = callback
        return list(named.items())

    def _is_json(self, callback: Callback, state: object) -> bool:
        try:
            commit.as_json(state)
        except (TypeError, ValueError) as error:
            self._on_error(callback, "state_dict", error)
            return False
        return True

    def _ask(self, callback: Callback, event: str, *arguments: Any) -> Any:
        if self._failure is not None and callback is self._failure.callback:
            return None
        try:
            return getattr(callback, event)(*arguments)
        except Exception as error:
            self._on_error(callback, event, error)
            return None

    def _on_error(self, callback: Callback, event: str, error: Exception) -> None:
        if callback not in self._loggers:
            self._failure = self._failure or _Failure(callback, event, error)
            return
        self._loggers.remove(callback)
        said = " ".join(f"{type(error).__name__}: {error}".split())
        self._warn(f"warning: {callback} failed and was disabled ({said}); training goes on")


def _require_callbacks(callbacks: Sequence[object]) -> None:
    wrong = [callback for callback in callbacks if not isinstance(callback, Callback)]
    if wrong:
        given = f"the class {wrong[0].__name__}" if isinstance(wrong[0], type) else repr(wrong[0])
        raise SettingsError(
            f"{given} is no callback.",
            "instances of classes that derive from rg.Callback",
            "`class Mine(rg.Callback): ...` and pass `callbacks=[Mine()]`",
        )
