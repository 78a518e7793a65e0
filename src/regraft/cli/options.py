"""Options that several verbs share, spelled once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = [
    "DeviceOption",
    "JsonOption",
    "LabelsOption",
    "LogOption",
    "NamesOption",
    "OutOption",
    "PrecisionOption",
    "RunArgument",
    "ThreadsOption",
    "log_names",
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
JsonOption = Annotated[
    bool, typer.Option("--json", help="On stdout one JSON object a line: start, each epoch, end (docs/watch-a-run.md).")
]
LogOption = Annotated[
    list[str] | None,
    typer.Option("--log-with", help="tensorboard (the default), wandb, mlflow ..., or none.", show_default=False),
]


def log_names(given: list[str] | None) -> list[str] | None:
    """The names behind `--log-with`, given once for each, or with commas; `none` names nothing."""
    if given is None:
        return None
    names = [name.strip() for text in given for name in text.split(",")]
    return [name for name in names if name and name != "none"]
