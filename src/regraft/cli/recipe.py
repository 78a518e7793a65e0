"""`regraft recipe`: a recipe to start from."""

from __future__ import annotations

import sys

__all__ = ["recipe"]


def recipe() -> None:
    """Print the recipe of a run without options, to save, edit and pass to `regraft train --recipe`."""
    import yaml

    from regraft.recipe import default_recipe, validate_recipe

    settings = validate_recipe(default_recipe()).model_dump(exclude={"defaults", "numerics", "save_steps", "log"})
    yaml.safe_dump(settings, sys.stdout, sort_keys=False, allow_unicode=True)
