"""`regraft pull`: a network from the hub, checked and replayed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from regraft.cli.options import TokenOption
from regraft.cli.say import say

__all__ = ["pull"]


def pull(
    repo: Annotated[str, typer.Argument(help="USER/NAME on the hub.", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option(
            "-o", "--out", help="New model folder; default: NAME. Nothing is overwritten.", show_default=False
        ),
    ] = None,
    revision: Annotated[
        str | None, typer.Option("--revision", help="Branch, tag or hash of a commit.", show_default=False)
    ] = None,
    token: TokenOption = None,
) -> None:
    """Copy a network that `regraft push` has put on the Hugging Face hub, here, as a model folder.

    Every file is checked by its hash, and the golden probes are replayed, before the folder gets its name.

    HF_ENDPOINT names a mirror.
    """
    from regraft.sharing.hub import require_names

    require_names(repo, revision, token)  # said before torch is imported

    from regraft.sharing.pull import pull as fetch

    say(str(fetch(repo, out, revision=revision, token=token)))
