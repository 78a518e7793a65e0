"""`regraft sign`: a signature over every file of a model folder."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from regraft.cli.say import say

__all__ = ["sign"]


def sign(
    run: Annotated[Path, typer.Argument(help="Run folder or model folder.", show_default=False)],
    key: Annotated[Path, typer.Option("--key", help="Private key of an elliptic curve, PEM.", show_default=False)],
    certificate: Annotated[
        Path | None, typer.Option("--certificate", help="Of the key, PEM; default: the key alone.", show_default=False)
    ] = None,
    chain: Annotated[
        list[Path] | None,
        typer.Option("--chain", help="Certificates between that one and the root, PEM.", show_default=False),
    ] = None,
) -> None:
    """Sign the model folder of a run with OpenSSF model-signing: model.sig in it covers every file.

    A password of the key goes into REGRAFT_KEY_PASSWORD. Nothing is asked of a network.
    """
    from regraft.sharing.signing import PASSWORD
    from regraft.sharing.signing import sign as write

    signed = write(run, key=key, certificate=certificate, chain=chain or (), password=os.environ.get(PASSWORD))
    say(f"signed {signed.num_files} files of {signed.path}; verify with `regraft verify`, and the public key")
