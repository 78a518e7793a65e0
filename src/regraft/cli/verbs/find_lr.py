"""`regraft find-lr`: which learning rate a stage can take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from regraft import commit
from regraft.cli.options import (
    ClassTableOption,
    DeviceOption,
    GroupOption,
    IgnoreOption,
    LabelsOption,
    MasksOption,
    NamesOption,
    ThreadsOption,
    ignored_items,
)
from regraft.cli.say import say
from regraft.cli.settings import opened_recipe

__all__ = ["find_lr"]


def find_lr(
    data: Annotated[
        str | None, typer.Argument(help="Images, as for `regraft train`; overrides data.source.", show_default=False)
    ] = None,
    labels: LabelsOption = None,
    names: NamesOption = None,
    masks: MasksOption = None,
    class_table: ClassTableOption = None,
    ignore: IgnoreOption = None,
    group: GroupOption = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", help="Name of a network: any timm model, alexnet, unet, segnet, keras_NAME.", show_default=False
        ),
    ] = None,
    recipe: Annotated[Path | None, typer.Option("--recipe", help="YAML recipe.", show_default=False)] = None,
    stage: Annotated[
        str | None, typer.Option("--stage", help="Name of the stage; default: the first with a learning rate.")
    ] = None,
    image_size: Annotated[int | None, typer.Option("--image-size", min=1, help="Side in pixels.")] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="KEY=VALUE, e.g. `--set stages.1.optimizer=sgd`.")
    ] = None,
    start: Annotated[float, typer.Option("--start", help="First learning rate.")] = 1e-7,
    end: Annotated[float, typer.Option("--end", help="Last learning rate.")] = 1.0,
    steps: Annotated[int, typer.Option("--steps", help="Maximum number of steps.")] = 100,
    out: Annotated[
        Path | None, typer.Option("--out", help="Also write the curve to this HTML file.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print rates, losses and the suggestion as JSON.")] = False,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
) -> None:
    """Sweep the learning rate over a few steps of a stage, on a copy, and suggest one; nothing is kept."""
    options = {
        "data.source": data,
        "data.labels": labels and str(labels),
        "data.names": names and str(names),
        "data.masks": masks,
        "data.class_table": class_table and str(class_table),
        "data.ignore": ignored_items(ignore),
        "data.group": group,
        "model.name": model,
        "model.image_size": image_size,
        "numerics.device": device if device != "auto" else None,
        "numerics.threads": threads,
    }
    if out is not None:
        from regraft.report.html.markup import PAGE_MARK

        commit.require_replaceable(out, PAGE_MARK)  # before minutes are spent
    checked, opened = opened_recipe(recipe, options, assignments)

    from regraft.assembly.range_test import range_test
    from regraft.machine.heap import keep_freed_memory

    keep_freed_memory()
    found = range_test(checked, stage=stage, data=opened, start=start, end=end, steps=steps)
    if out is not None:
        from regraft.report.range_test import write_range_test

        write_range_test(out, found.to_dict())
    say(json.dumps(found.to_dict()) if as_json else found.render())
