"""`regraft report`: report.html from a run's folder."""

from __future__ import annotations

import typer

from regraft.cli.options import RunArgument

__all__ = ["report"]


def report(run: RunArgument) -> None:
    """Write report.html again, from what the run's folder holds."""
    from regraft.report.build import write_report
    from regraft.run.folder import open_run

    typer.echo(f"report: {write_report(open_run(run).path)}")
