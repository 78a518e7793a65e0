"""Experiment trackers (W&B, MLflow, Trackio, ...) through accelerate, which knows how to talk to each of them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from regraft import commit
from regraft.run.records import candidate_name, curves, flat
from regraft.training.callbacks import Callback

if TYPE_CHECKING:
    from regraft.training.views import RunView, StageView

__all__ = ["Tracker", "known_trackers"]

_PROJECT = "regraft"
_STEP_SECONDS = 5.0  # between two losses of single steps: trackers talk to servers


def known_trackers() -> list[str]:
    """Return the names that accelerate knows, those that a program has registered with it included."""
    return sorted(_trackers())


def _trackers() -> dict[str, Any]:
    """Return accelerate's classes by name; it is imported for runs that name one of them."""
    from accelerate.tracking import LOGGER_TYPE_TO_CLASS

    classes: dict[str, Any] = LOGGER_TYPE_TO_CLASS
    return classes


class Tracker(Callback):
    """One of accelerate's trackers, told the epochs of a run, and the loss of a step now and then.

    Args:
        name: One of `known_trackers()`.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._tracker: Any = None
        self._page = ""
        self._said_at = 0.0

    def __str__(self) -> str:
        return self.name

    def on_run_start(self, session: RunView) -> None:
        """Start or resume the run's page; the recipe is its configuration."""
        from accelerate import PartialState

        PartialState()  # trackers log through it, and a run in one process makes none
        kind = _trackers()[self.name]
        folder = [str(session.run_folder.path)] if kind.requires_logging_directory else []
        begun = bool(self._page)
        self._tracker = kind(_PROJECT, *folder, **self._arguments(session))
        self._tracker.start()
        if self.name == "mlflow":
            self._page = self._tracker.tracker.info.run_id
        if begun:
            return
        settings = flat(session.run_folder.settings())
        self._tracker.store_init_configuration({key: _plain(value) for key, value in settings.items()})

    def on_step_end(self, stage: StageView, loss: float) -> None:
        """Log the loss, at most every few seconds."""
        if time.monotonic() - self._said_at > _STEP_SECONDS:
            self._said_at = time.monotonic()
            self._tracker.log({"step/loss": loss}, step=stage.progress.step)

    def on_epoch_end(self, stage: StageView, record: Mapping[str, Any]) -> None:
        """Log the numbers of the epoch's line of metrics.jsonl."""
        values = {f"epoch/{key}": value for key, value in curves(record).items()}
        self._tracker.log(values, step=stage.progress.step)

    def on_candidate(self, stage: StageView, record: Mapping[str, Any]) -> None:
        """Log the numbers of the network's line of metrics.jsonl, under its name."""
        values = {f"{candidate_name(record)}/{key}": value for key, value in curves(record).items()}
        self._tracker.log(values, step=stage.progress.step + 1)

    def state_dict(self) -> dict[str, Any]:
        """Return the tracker's id of the run's page, for resuming it, where it has one."""
        return {"page": self._page} if self._page else {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Find the page again."""
        self._page = state["page"]

    def close(self) -> None:
        """Send what is still waiting."""
        if self._tracker is not None:
            self._tracker.finish()

    def _arguments(self, session: RunView) -> dict[str, Any]:
        name = session.run_folder.path.resolve().name
        if self.name == "wandb":
            self._page = self._page or secrets.token_hex(4)
            return {"name": name, "id": self._page, "resume": "allow", "dir": str(session.run_folder.path)}
        return {"run_name": name, "run_id": self._page or None} if self.name == "mlflow" else {}


def _plain(value: Any) -> Any:
    return value if isinstance(value, bool | int | float | str) else commit.as_json(value)
