"""`regraft export`: a run's network as one file that other programs run, with a script and a card beside it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from regraft.cli.options import CheckpointOption, ThreadsOption
from regraft.cli.say import Patience, say

__all__ = ["export"]


def export(
    run: Annotated[Path, typer.Argument(help="Run folder, model folder, or a cross-validation.", show_default=False)],
    out: Annotated[
        Path,
        typer.Option(
            "-o", "--out", help="NAME.onnx, .html, .xml, .pt2 or a folder; nothing is overwritten.", show_default=False
        ),
    ],
    to: Annotated[
        str | None,
        typer.Option(
            "--to",
            help="Format: onnx, html, openvino, torch, mlflow; default: by the suffix of --out.",
            show_default=False,
        ),
    ] = None,
    verify: Annotated[
        int, typer.Option("--verify", min=0, help="How many odd images the file is compared on before it is written.")
    ] = 48,
    int8: Annotated[
        bool,
        typer.Option(
            "--int8", help="Compute in 8-bit integers, if that loses at most 0.3 points (accuracy, or mean IoU)."
        ),
    ] = False,
    calibrate: Annotated[
        Path | None,
        typer.Option(
            "--calibrate", help="For --int8: labelled images, where the run's own are gone.", show_default=False
        ),
    ] = None,
    checkpoint: CheckpointOption = None,
    runtime: Annotated[
        Path | None,
        typer.Option(
            "--runtime", help="Of a page: the file of onnxruntime-web; default: npm fetches it.", show_default=False
        ),
    ] = None,
    threads: ThreadsOption = None,
) -> None:
    """Write a run's network as one file that other programs run: images of any size in, probabilities or masks out.

    A page (NAME.html) opens by double-click, offline: photos are dropped, chosen or taken there.

    Resizing, normalisation and temperature are inside the file, class names and thresholds in its metadata.

    It is written only if it says of the golden probes and of odd images what the run says.
    """
    from regraft.exports.formats import require_exportable
    from regraft.run.order import require_run_first

    require_run_first("export", run, [out])
    require_exportable(run, out, to, checkpoint, runtime=runtime)  # said before torch is imported

    from regraft.compute.numerics import choose_numerics
    from regraft.exports.export import export as write

    choose_numerics("cpu", "fp32", threads)
    found = write(
        run,
        out,
        to=to,
        verify=verify,
        checkpoint=checkpoint,
        int8=int8,
        calibrate=calibrate,
        runtime=runtime,
        progress=Patience("comparing"),
    )
    say(str(found))
