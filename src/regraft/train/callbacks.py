"""Who is told what happens in a run, and when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from regraft.train.session import Session
    from regraft.train.stage_run import StageRun

__all__ = ["Callback", "Callbacks"]


class Callback:
    """Something that watches a run. Every method does nothing here; write those that you need.

    Callbacks see the run, they do not change it: a run is a function of its recipe.
    """

    def on_run_start(self, session: Session) -> None:
        """Once, after decoding and before the first (or resumed) stage."""

    def on_stage_start(self, stage: StageRun) -> None:
        """The stage is frozen, has its optimizer, and has not trained yet."""

    def on_step_end(self, stage: StageRun, loss: float) -> None:
        """An optimizer step was taken; `loss` is the mean over its batch."""

    def on_epoch_end(self, stage: StageRun, record: Mapping[str, Any]) -> None:
        """An epoch was validated; `record` is its line of metrics.jsonl."""

    def on_checkpoint(self, session: Session) -> None:
        """A checkpoint is on the disk."""

    def on_stage_end(self, stage: StageRun) -> None:
        """The stage was audited."""

    def on_run_end(self, session: Session) -> None:
        """The model folder is written."""


class Callbacks:
    """Several callbacks as one, called in order."""

    def __init__(self, callbacks: Sequence[Callback] = ()) -> None:
        self.callbacks = tuple(callbacks)

    def tell(self, event: str, *arguments: Any) -> None:
        """Call the method `event` of every callback."""
        for callback in self.callbacks:
            getattr(callback, event)(*arguments)
