"""Options that several verbs share, spelled once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "DeviceOption",
    "LabelsOption",
    "NamesOption",
    "OutOption",
    "PrecisionOption",
    "RunArgument",
    "ThreadsOption",
]

RunArgument = Annotated[Path, typer.Argument(help="A run's folder, such as runs/photos-1.", show_default=False)]
LabelsOption = Annotated[
    Path | None, typer.Option("--labels", help="The list of the labels of the photos in a folder.", show_default=False)
]
NamesOption = Annotated[
    Path | None, typer.Option("--names", help="The names of labels that are numbers, one a line.", show_default=False)
]
OutOption = Annotated[Path | None, typer.Option("--out", help="The run's folder; without it runs/<data>-<n>.")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or mps.")]
ThreadsOption = Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads; all of them by default.")]
PrecisionOption = Annotated[str, typer.Option("--precision", help="auto, fp32, bf16 or fp16.")]
