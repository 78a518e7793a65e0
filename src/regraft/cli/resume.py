"""`regraft resume`: go on with a run that was stopped, or with one that is to be changed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regraft.cli.news import News
from regraft.cli.options import JsonOption, RunArgument

if TYPE_CHECKING:
    from regraft.run.folder import RunFolder

__all__ = ["resume"]


def resume(
    run: RunArgument,
    recipe: Annotated[
        Path | None, typer.Option("--recipe", help="Settings to go on with; without it the run's own.")
    ] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="key=value, as in `--set stages.1.epochs=20`.", show_default=False)
    ] = None,
    allow_change: Annotated[
        list[str] | None, typer.Option("--allow-change", help="A key that may differ from the run's.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Go on with a run that was stopped, to the same result; a finished run is left as it is.

    With changed settings it goes on only where `--allow-change KEY` says so: more epochs in the last stage of a
    finished run, a further stage, another learning rate.
    """
    from regraft import pipeline
    from regraft.cli.train import finish, show_folds
    from regraft.folds import is_folds, resume_folds
    from regraft.models.numerics import keep_freed_memory
    from regraft.run.folder import open_run
    from regraft.run.processes import is_main_process

    news = News(as_json=as_json)
    with news.ended():
        if is_folds(run):
            keep_freed_memory()
            show_folds(resume_folds(run, callbacks=news.callbacks, show=news.shows_progress), news)
            return
        folder = open_run(run)
        is_changed = recipe is not None or bool(assignments) or bool(allow_change)
        if not is_changed and folder.is_finished and folder.report.exists():
            if is_main_process():
                folder.sweep()
                news.say(f"{run} is finished; nothing to do. Its report: {folder.report}")
                news.end(run=str(run), model=str(folder.model), report=str(folder.report))
            return
        settings = _settings(folder, recipe, assignments or ()) if is_changed else None
        keep_freed_memory()
        how: dict[str, Any] = {"recipe": settings, "allow_change": allow_change or ()}
        finish(pipeline.resume(folder, **how, callbacks=news.callbacks, show=news.shows_progress).path, news)


def _settings(run: RunFolder, recipe: Path | None, assignments: Any) -> dict[str, Any]:
    """The run's settings, or a recipe's, with those on the command line; what a recipe leaves open is as in the run."""
    from regraft.recipe import apply_set, read_recipe

    stored = run.settings()
    values = stored if recipe is None else read_recipe(recipe)
    if recipe is not None:
        values.setdefault("numerics", stored.get("numerics"))
        if isinstance(values.setdefault("data", {}), dict):
            values["data"].setdefault("source", stored.get("data", {}).get("source"))
    for assignment in assignments:
        apply_set(values, assignment)
    return values
