"""Options that several verbs share, spelled once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

__all__ = [
    "ArgumentsOption",
    "CheckpointOption",
    "ClassTableOption",
    "DeviceOption",
    "GroupOption",
    "IgnoreOption",
    "JsonOption",
    "LabelsOption",
    "LogOption",
    "MasksOption",
    "NamesOption",
    "OutOption",
    "PrecisionOption",
    "RunArgument",
    "ThreadsOption",
    "TokenOption",
    "ViewsOption",
    "arguments_of",
    "log_names",
]

RunArgument = Annotated[Path, typer.Argument(help="Run folder, e.g. runs/photos-1.", show_default=False)]
LabelsOption = Annotated[
    Path | None, typer.Option("--labels", help="List of labels for the images in a folder.", show_default=False)
]
NamesOption = Annotated[
    Path | None,
    typer.Option(
        "--names", help="Text file with one class name per line, for labels that are numbers.", show_default=False
    ),
]
MasksOption = Annotated[
    str | None,
    typer.Option(
        "--masks", help="Masks: a folder, a COCO file, or a pattern such as '*_mask.png'.", show_default=False
    ),
]
ClassTableOption = Annotated[
    Path | None,
    typer.Option("--class-table", help="Classes in masks: a CSV, text or YAML file.", show_default=False),
]
IgnoreOption = Annotated[
    list[str] | None,
    typer.Option("--ignore", help="Void in masks: a value, a class, or a colour such as #000000.", show_default=False),
]
GroupOption = Annotated[
    str | None,
    typer.Option(
        "--group",
        help="What a split keeps together: a column of the table, `folder`, or a regular expression for paths.",
        show_default=False,
    ),
]
OutOption = Annotated[Path | None, typer.Option("--out", help="Run folder; default: runs/<data>-<n>.")]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or mps.")]
ThreadsOption = Annotated[int | None, typer.Option("--threads", min=1, help="CPU threads; default: all.")]
TokenOption = Annotated[
    str | None,
    typer.Option(
        "--token",
        help="Of the hub; better HF_TOKEN, or `hf auth login`: others see what is typed here.",
        show_default=False,
    ),
]
PrecisionOption = Annotated[str, typer.Option("--precision", help="auto, fp32, bf16 or fp16.")]
CheckpointOption = Annotated[
    str | None,
    typer.Option(
        "--checkpoint",
        help="Network of a run: `last`, or the name of a stage for its best epoch; default: the chosen one.",
        show_default=False,
    ),
]
ViewsOption = Annotated[
    str | None,
    typer.Option(
        "--tta",
        help="Test-time augmentation: flip, crops, multi, or auto (what the run's validation images gain by); masks: "
        "flip.",
        show_default=False,
    ),
]
JsonOption = Annotated[
    bool,
    typer.Option("--json", help="One JSON object per line on stdout: start, each epoch, end (docs/watch-a-run.md)."),
]
LogOption = Annotated[
    list[str] | None,
    typer.Option("--log", help="Loggers: tensorboard (default), wandb, mlflow ..., or none.", show_default=False),
]


ArgumentsOption = Annotated[
    list[str] | None,
    typer.Option("--arg", help="NAME=VALUE: an argument of the network, e.g. `encoder=resnet34`.", show_default=False),
]


def arguments_of(given: list[str] | None) -> dict[str, Any]:
    """Return `--arg NAME=VALUE` options as a network's arguments; values are read as in a recipe.

    Raises:
        SettingsError: One that is no such pair.
    """
    from regraft.errors import SettingsError
    from regraft.recipe.recipe import apply_set

    values: dict[str, Any] = {}
    for pair in given or ():
        name, sign, _ = pair.partition("=")
        if not sign or not name.strip().isidentifier():
            raise SettingsError(
                f"--arg {pair!r} is not an argument of a network.",
                "NAME=VALUE",
                "for example `--arg encoder=resnet34`",
            )
        apply_set(values, pair)
    return values


def ignored_items(given: list[str] | None) -> list[int | str] | None:
    """Return the items of `--ignore`, given repeatedly or with commas: mask values as numbers, class names as text."""
    if given is None:
        return None
    words = [word.strip() for text in given for word in text.split(",")]
    return [int(word) if word.isdecimal() else word for word in words if word]


def log_names(given: list[str] | None) -> list[str] | None:
    """Return the names behind `--log`, given once for each, or with commas; `none` names nothing."""
    if given is None:
        return None
    names = [name.strip() for text in given for name in text.split(",")]
    return [name for name in names if name and name != "none"]
