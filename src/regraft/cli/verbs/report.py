"""`regraft report`: report.html from a run's folder."""

from __future__ import annotations

from regraft.cli.options import RunArgument
from regraft.cli.say import say

__all__ = ["report"]


def report(run: RunArgument) -> None:
    """Write report.html again, from the folder of a run or of a cross-validation."""
    from regraft.report.build import write_report
    from regraft.run.folder import open_run
    from regraft.run.folds_folder import open_folds

    folds = open_folds(run)
    for fold in folds.runs if folds is not None else ():
        if fold.recipe.is_file():
            write_report(fold)
    say(f"report: {write_report((folds or open_run(run)).path)}")
