"""`regraft models`: which networks can be built, and where their weights are."""

from __future__ import annotations

from typing import Annotated

import typer

from regraft.cli.say import say
from regraft.commit import as_json as as_json_text

__all__ = ["models"]


def models(
    pattern: Annotated[
        str,
        typer.Argument(
            help="A pattern such as 'resnet*', or 'resnet50.*' for tags; fast, balanced or best for those worth trying "
            "first."
        ),
    ] = "*",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List networks that can be built: name, parameters (of a few), and where pretrained weights are."""
    from regraft.models.zoo.catalogue import describe_models, table_of_models

    rows = describe_models(pattern)
    if as_json:
        typer.echo(as_json_text([row.to_dict() for row in rows], indent=2))
        return
    say(table_of_models(rows))
    here = [row.name for row in rows if row.weights in ("installed", "cached")]
    if len(rows) > 1:
        say(f"{len(rows):,} networks; {len(here)} with weights on this machine", err=True)
