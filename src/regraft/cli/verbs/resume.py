"""`regraft resume`: go on with a run that was stopped, or with one that is to be changed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from regraft.cli.options import JsonOption, RunArgument
from regraft.cli.output import Output

if TYPE_CHECKING:
    from regraft.run.folder import RunFolder

__all__ = ["resume"]


def resume(
    run: RunArgument,
    recipe: Annotated[
        Path | None, typer.Option("--recipe", help="Recipe to continue with; default: the run's own.")
    ] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE, e.g. `--set stages.1.epochs=20`.", show_default=False)
    ] = None,
    allow_change: Annotated[
        list[str] | None, typer.Option("--allow-change", help="Key that may differ from the run's.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Resume a run that was stopped, bit-exactly; a finished run is left as it is.

    Settings may only change where `--allow-change KEY` names them: more epochs in the last stage of a
    finished run, a further stage, another learning rate.
    """
    from regraft.cli.verbs.train import finish, show_folds
    from regraft.machine.processes import is_main_process
    from regraft.run.folder import open_run
    from regraft.run.folds_folder import is_folds

    output = Output(as_json=as_json)
    with output.ended():
        if is_folds(run):
            from regraft.folds import resume_folds
            from regraft.machine.heap import keep_freed_memory

            keep_freed_memory()
            show_folds(resume_folds(run, callbacks=output.callbacks, show=output.shows_progress), output)
            return
        folder = open_run(run)
        is_changed = recipe is not None or bool(assignments) or bool(allow_change)
        if not is_changed and folder.is_finished and folder.report.exists():
            if is_main_process():
                folder.sweep()
                output.say(f"{run} is finished; nothing to do. Its report: {folder.report}")
                output.end(run=str(run), model=str(folder.model), report=str(folder.report))
            return
        from regraft import pipeline
        from regraft.machine.heap import keep_freed_memory

        settings = _settings(folder, recipe, assignments or ()) if is_changed else None
        keep_freed_memory()
        how: dict[str, Any] = {"recipe": settings, "allow_change": allow_change or ()}
        finish(pipeline.resume(folder, **how, callbacks=output.callbacks, show=output.shows_progress).path, output)


def _settings(run: RunFolder, recipe: Path | None, assignments: Any) -> dict[str, Any]:
    """Return the run's settings, or a recipe's, with those on the command line; what a recipe leaves open is as in
    the run.
    """
    from regraft.recipe.recipe import read_recipe, set_all

    stored = run.settings()
    values = stored if recipe is None else read_recipe(recipe)
    if recipe is not None:
        values.setdefault("numerics", stored.get("numerics"))
        if isinstance(values.setdefault("data", {}), dict):
            values["data"].setdefault("source", stored.get("data", {}).get("source"))
    set_all(values, assignments)
    return values
