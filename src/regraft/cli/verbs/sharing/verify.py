"""`regraft verify`: whether a model folder is as it was signed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from regraft.cli.say import say

__all__ = ["verify"]


def verify(
    run: Annotated[Path, typer.Argument(help="Run folder or model folder.", show_default=False)],
    public_key: Annotated[
        Path | None, typer.Option("--public-key", help="Of the signer, PEM.", show_default=False)
    ] = None,
    certificates: Annotated[
        list[Path] | None,
        typer.Option("--certificates", help="Roots of the signer's certificate, PEM.", show_default=False),
    ] = None,
) -> None:
    """Verify that a model folder is as it was signed: every byte of every file, and no file more or less.

    The key has to come another way than the folder. Other commands do not look at signatures: verify first.
    """
    from regraft.sharing.signing import verify as check

    say(str(check(run, public_key=public_key, certificates=certificates or ())))
