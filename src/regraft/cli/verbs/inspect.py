"""`regraft inspect`: what a run, a model, a folder of images, a weights file or a name holds."""

from __future__ import annotations

from typing import Annotated

import typer

from regraft.cli.effects import say_unused
from regraft.cli.options import (
    ArgumentsOption,
    ClassTableOption,
    GroupOption,
    IgnoreOption,
    LabelsOption,
    MasksOption,
    NamesOption,
    arguments_of,
    ignored_items,
)
from regraft.cli.say import Patience, say

__all__ = ["inspect"]

_OPTIONS = {"key": "--from", "arguments": "--arg"}


def inspect(
    target: Annotated[
        str,
        typer.Argument(
            help="A run, a folder of runs, a model folder, images (a folder, a list, a table), weights, a model name.",
            show_default=False,
        ),
    ],
    labels: LabelsOption = None,
    names: NamesOption = None,
    masks: MasksOption = None,
    class_table: ClassTableOption = None,
    ignore: IgnoreOption = None,
    group: GroupOption = None,
    image_size: Annotated[
        int | None, typer.Option("--image-size", min=1, help="Image size in pixels, for output shapes.")
    ] = None,
    arguments: ArgumentsOption = None,
    key: Annotated[str | None, typer.Option("--from", help="Name of the set of tensors within a weights file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what a path or model contains: a run's state, a network's layers, a data set's defects, a file's tensors."""
    from regraft import inspection

    found = inspection.inspect(
        target,
        key=key,
        image_size=image_size,
        arguments=arguments_of(arguments),
        progress=Patience("decoding"),
        labels=labels,
        names=names,
        masks=masks,
        class_table=class_table,
        ignore=ignored_items(ignore),
        group=group,
    )
    unused = {_OPTIONS.get(name, f"--{name.replace('_', '-')}"): True for name in found.unused}
    say_unused(unused, f"the target is {found.kind}")
    if as_json:
        typer.echo(found.to_json())
    else:
        say(found.text)
