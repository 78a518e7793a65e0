"""`regraft serve`: a run or an exported file answers HTTP requests."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from regraft.cli.options import ThreadsOption
from regraft.cli.say import say

__all__ = ["serve"]


def serve(
    run: Annotated[
        Path, typer.Argument(help="Run folder, model folder, or an export (NAME.onnx).", show_default=False)
    ],
    host: Annotated[str, typer.Option("--host", help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, help="0: any that is free.")] = 8000,
    token: Annotated[
        str | None,
        typer.Option("--token", help="What clients must send; better set REGRAFT_TOKEN.", show_default=False),
    ] = None,
    open_to_all: Annotated[bool, typer.Option("--open-to-all", help="Answer other computers without a token.")] = False,
    sets: Annotated[
        float | None,
        typer.Option("--sets", help="Share of images whose set holds the true class.", show_default="0.9 if kept"),
    ] = None,
    reject: Annotated[
        bool, typer.Option("--reject", help="`unknown` for images like none of training and validation.")
    ] = False,
    max_mb: Annotated[float, typer.Option("--max-mb", min=0.001, help="Largest request, in MB.")] = 20,
    max_megapixels: Annotated[float, typer.Option("--max-megapixels", min=0.001, help="Largest image.")] = 50,
    queue: Annotated[int, typer.Option("--queue", min=1, help="Images at once; more are answered with 429.")] = 64,
    seconds: Annotated[float, typer.Option("--seconds", min=0.1, help="To read a request; again to answer it.")] = 30,
    threads: ThreadsOption = None,
) -> None:
    """Answer HTTP requests by a run or an exported file: images in, JSON out, and a page to try it.

    POST an image to /predict, several to /predict/batch. See /docs, /openapi.json, /healthz and /metrics.

    Ctrl-C and SIGTERM finish what is being answered, and end it.
    """
    from regraft.serving.limits import Limits
    from regraft.serving.server import TOKEN, require_servable
    from regraft.serving.server import serve as run_server

    token = os.environ.get(TOKEN, "") if token is None else token
    require_servable(host, token, open_to_all)
    limits = Limits(
        upload_bytes=round(max_mb * 1e6),
        pixels=round(max_megapixels * 1e6),
        queue=queue,
        seconds=seconds,
        header_seconds=min(10, seconds),
    )
    run_server(
        run,
        host=host,
        port=port,
        token=token,
        open_to_all=open_to_all,
        sets=sets,
        reject=reject,
        threads=threads,
        limits=limits,
        started=lambda address: say(f"serving {run} at {address}", err=True),
    )
    say("stopped; what was being answered is answered", err=True)
