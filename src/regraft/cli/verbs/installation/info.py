"""`regraft info`: what is installed here and what it would compute with, to paste into a bug report."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from regraft.cli.say import say
from regraft.cli.verbs.installation.facts import collect
from regraft.commit import as_json as as_json_text

__all__ = ["info"]


def info(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show versions, devices, threads, caches and extras of this installation, to paste into a bug report."""
    facts = collect()
    if as_json:
        typer.echo(as_json_text(facts, indent=2))
        return
    say("\n".join(f"{name + ':':<11}{_as_text(value)}" for name, value in facts.items()))


def _as_text(value: Any) -> str:
    if isinstance(value, dict):
        return "\n".join(f"{name} {fact}" for name, fact in value.items()).replace("\n", "\n" + " " * 11)
    return ", ".join(value) or "none" if isinstance(value, list) else str(value)
