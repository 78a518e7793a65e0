"""`regraft find-lr`: which learning rate a stage can take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from regraft.cli.options import (
    ClassTableOption,
    DeviceOption,
    IgnoreOption,
    LabelsOption,
    MasksOption,
    NamesOption,
    ThreadsOption,
    ignored_items,
)
from regraft.cli.settings import opened_recipe

__all__ = ["find_lr"]


def find_lr(
    photos: Annotated[
        str | None, typer.Argument(help="As for train; replaces data.source.", show_default=False)
    ] = None,
    labels: LabelsOption = None,
    names: NamesOption = None,
    masks: MasksOption = None,
    class_table: ClassTableOption = None,
    ignore: IgnoreOption = None,
    model: Annotated[str | None, typer.Option("--model", help="A timm name.", show_default=False)] = None,
    recipe: Annotated[Path | None, typer.Option("--recipe", help="A YAML recipe.", show_default=False)] = None,
    stage: Annotated[str | None, typer.Option("--stage", help="Else the first that has a learning rate.")] = None,
    image_size: Annotated[int | None, typer.Option("--image-size", min=1, help="Side in pixels.")] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="key=value, as in `--set stages.1.optimizer=sgd`.")
    ] = None,
    start: Annotated[float, typer.Option("--start", help="The first rate.")] = 1e-7,
    end: Annotated[float, typer.Option("--end", help="The last rate.")] = 1.0,
    steps: Annotated[int, typer.Option("--steps", help="How many steps at most.")] = 100,
    out: Annotated[
        Path | None, typer.Option("--out", help="Write the curve to this HTML file too.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Rates, losses and the suggestion as JSON.")] = False,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
) -> None:
    """Raise the learning rate over a few steps of a stage, on a copy, and suggest one. Keeps nothing."""
    options = {
        "data.source": photos,
        "data.labels": labels and str(labels),
        "data.names": names and str(names),
        "data.masks": masks,
        "data.class_table": class_table and str(class_table),
        "data.ignore": ignored_items(ignore),
        "model.name": model,
        "model.image_size": image_size,
        "numerics.device": device if device != "auto" else None,
        "numerics.threads": threads,
    }
    checked, data = opened_recipe(recipe, options, assignments)

    from regraft.models.numerics import keep_freed_memory
    from regraft.pipeline import range_test

    keep_freed_memory()
    found = range_test(checked, stage=stage, data=data, start=start, end=end, steps=steps)
    if out is not None:
        from regraft.report.range_test import write_range_test

        write_range_test(out, found.to_dict())
    typer.echo(json.dumps(found.to_dict()) if as_json else found.render())
