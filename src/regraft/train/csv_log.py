"""metrics.csv: the epochs of metrics.jsonl as rows of a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from regraft.run.records import write_metrics_csv
from regraft.train.callbacks import Callback

if TYPE_CHECKING:
    from regraft.train.session import Session
    from regraft.train.stage_run import StageRun

__all__ = ["CsvLog"]


class CsvLog(Callback):
    """Writes the whole table again after each epoch: it is a function of metrics.jsonl, so it never falls behind."""

    def __str__(self) -> str:
        return "metrics.csv"

    def on_run_start(self, session: Session) -> None:
        """A resumed run's table loses the rows that metrics.jsonl lost."""
        self._write(session)

    def on_epoch_end(self, stage: StageRun, record: Mapping[str, Any]) -> None:
        """A new row."""
        self._write(stage.session)

    def _write(self, session: Session) -> None:
        if session.run_folder.metrics.exists():
            write_metrics_csv(session.run_folder.metrics, session.run_folder.metrics_csv)
