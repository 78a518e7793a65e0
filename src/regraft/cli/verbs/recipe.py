"""`regraft recipe`: a recipe to start from, and what an editor needs to know about recipes."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

__all__ = ["recipe"]


def recipe(
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the JSON schema, for completion and checks in an editor.")
    ] = False,
) -> None:
    """Print the default recipe, to save, edit and pass to `regraft train --recipe`."""
    if schema:
        import json

        from regraft.recipe.recipe import schema as recipe_schema

        typer.echo(json.dumps(recipe_schema(), indent=2))
        return

    import yaml

    from regraft.recipe.recipe import default_recipe, validate_recipe

    settings = validate_recipe(default_recipe()).model_dump(exclude={"defaults", "numerics", "save_steps"})
    yaml.safe_dump(settings, sys.stdout, sort_keys=False, allow_unicode=True)
