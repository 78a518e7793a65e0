"""`regraft resume`: go on with a run that was stopped."""

from __future__ import annotations

import typer

from regraft.cli.options import RunArgument

__all__ = ["resume"]


def resume(run: RunArgument) -> None:
    """Go on with a run that was stopped, to the same result; a finished run is left as it is."""
    from regraft import pipeline
    from regraft.cli.train import finish
    from regraft.folds import is_folds, resume_folds
    from regraft.models.numerics import keep_freed_memory
    from regraft.run.folder import open_run
    from regraft.run.processes import is_main_process

    if is_folds(run):
        keep_freed_memory()
        typer.echo(resume_folds(run).render())
        return
    folder = open_run(run)
    if (folder.read(folder.status) or {}).get("state") == "finished" and folder.report.exists():
        if is_main_process():
            typer.echo(f"{run} is finished; nothing to do. Its report: {folder.report}")
        return
    keep_freed_memory()
    finish(pipeline.resume(folder).path)
