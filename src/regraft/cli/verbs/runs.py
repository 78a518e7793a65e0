"""`regraft runs`: which runs a folder holds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from regraft.cli.say import say
from regraft.commit import as_json as as_json_text
from regraft.run.invocation import typed_path

__all__ = ["runs"]


def runs(
    folder: Annotated[Path, typer.Argument(help="Folder of runs.")] = Path("runs"),
    differences: Annotated[
        bool, typer.Option("--differences", help="Also print each setting in which their recipes differ.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List runs: name, state, stages, best value, data, and when each was last written to."""
    from regraft.comparison.differences import differences_of_runs, recipe_differences
    from regraft.errors import SettingsError
    from regraft.run.listing import holds_runs, list_runs, table_of_runs

    if not holds_runs(folder):
        is_run = (folder / "recipe.yaml").is_file()
        there = "is a run itself" if is_run else "holds no runs" if folder.is_dir() else "does not exist"
        raise SettingsError(
            f"{str(folder)!r} {there}.",
            "a folder with run folders in it; `regraft train` makes them in runs/",
            f"`regraft inspect {typed_path(folder)}`" if is_run else "`regraft train DATA` for a first one",
        )
    found = list_runs(folder)
    if as_json:
        rows = [row.to_dict() for row in found]
        whole = {"runs": rows, "differences": recipe_differences(folder)} if differences else rows
        typer.echo(as_json_text(whole, indent=2))
        return
    say(table_of_runs(found))
    if differences:
        say(f"\n{differences_of_runs(folder)}")
