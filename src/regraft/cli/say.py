"""Lines for people on stdout and stderr: whatever names in files hold, they steer no terminal."""

from __future__ import annotations

import typer

from regraft.run.invocation import as_typed
from regraft.visible import visible

__all__ = ["say"]


def say(text: str, *, err: bool = False) -> None:
    """Print lines for people; what names of files, classes and layers hold beside plain text is spelt out."""
    typer.echo(visible(as_typed(text), keep="\n"), err=err)
