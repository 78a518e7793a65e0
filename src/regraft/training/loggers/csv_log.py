"""metrics.csv: the lines of metrics.jsonl as rows of a table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from regraft.run.records import write_metrics_csv
from regraft.training.callbacks import Callback

if TYPE_CHECKING:
    from regraft.training.views import RunView, StageView

__all__ = ["CsvLog"]


class CsvLog(Callback):
    """Writes the whole table again after each line: it is a function of metrics.jsonl, so it never falls behind."""

    def __str__(self) -> str:
        return "metrics.csv"

    def on_run_start(self, session: RunView) -> None:
        """Drop the rows of a resumed run that metrics.jsonl lost."""
        self._write(session)

    def on_epoch_end(self, stage: StageView, record: Mapping[str, Any]) -> None:
        """Add a row."""
        self._write(stage.session)

    def on_candidate(self, stage: StageView, record: Mapping[str, Any]) -> None:
        """Add a row."""
        self._write(stage.session)

    def _write(self, session: RunView) -> None:
        if session.run_folder.metrics.exists():
            write_metrics_csv(session.run_folder.metrics, session.run_folder.metrics_csv)
