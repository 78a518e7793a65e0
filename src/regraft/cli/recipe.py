"""`regraft recipe`: a recipe to start from, and what an editor needs to know about recipes."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

__all__ = ["recipe"]


def recipe(
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON schema, with which editors complete and check recipes.")
    ] = False,
) -> None:
    """Print the recipe of a run without options, to save, edit and pass to `regraft train --recipe`."""
    if schema:
        import json

        from regraft.recipe import schema as recipe_schema

        typer.echo(json.dumps(recipe_schema(), indent=2))
        return

    import yaml

    from regraft.recipe import default_recipe, validate_recipe

    settings = validate_recipe(default_recipe()).model_dump(exclude={"defaults", "numerics", "save_steps"})
    yaml.safe_dump(settings, sys.stdout, sort_keys=False, allow_unicode=True)
