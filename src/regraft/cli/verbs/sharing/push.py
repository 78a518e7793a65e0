"""`regraft push`: a run's network on the hub, with its card."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from regraft.cli.options import TokenOption
from regraft.cli.say import say

__all__ = ["push"]


def push(
    run: Annotated[Path, typer.Argument(help="Run folder or model folder.", show_default=False)],
    repo: Annotated[str, typer.Argument(help="USER/NAME on the hub; made where there is none.", show_default=False)],
    private: Annotated[bool, typer.Option("--private", help="Only its owner sees it.")] = False,
    token: TokenOption = None,
    revision: Annotated[
        str | None, typer.Option("--revision", help="Branch; default: the repository's own.", show_default=False)
    ] = None,
    message: Annotated[str | None, typer.Option("--message", help="Of the commit.", show_default=False)] = None,
    license: Annotated[
        str | None, typer.Option("--license", help="Of the model, for its card, e.g. apache-2.0.", show_default=False)
    ] = None,
    key: Annotated[
        Path | None, typer.Option("--key", help="Private key, PEM: sign what is uploaded.", show_default=False)
    ] = None,
    photos: Annotated[
        bool, typer.Option("--photos", help="Also upload what shows images of the data set: probes and report.html.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="List what would go; ask nobody.")] = False,
) -> None:
    """Put a run's network on the Hugging Face hub: weights, class names, preprocessing, thresholds, recipe, figures.

    Images of the data set, names of its files, predictions and paths of this machine are not uploaded.

    HF_ENDPOINT names a mirror.
    """
    from regraft.sharing.hub import require_names

    require_names(repo, revision, token)  # said before torch is imported

    from regraft.sharing.push import push as upload
    from regraft.sharing.signing import PASSWORD

    found = upload(
        run,
        repo,
        private=private,
        token=token,
        revision=revision,
        message=message,
        photos=photos,
        license=license,
        key=key,
        password=os.environ.get(PASSWORD),
        dry_run=dry_run,
    )
    say(str(found))
