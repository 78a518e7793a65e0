"""`regraft add-class`: new classes for a finished run, without its images and without training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from regraft.cli.options import DeviceOption, LabelsOption, NamesOption, RunArgument, ThreadsOption
from regraft.cli.say import Patience, say
from regraft.commit import as_json as as_json_text

__all__ = ["add_class"]


def add_class(
    run: RunArgument,
    photos: Annotated[
        Path | None,
        typer.Argument(
            help="Images of the new classes, a folder for each class; without them, the run's statistics are stored.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", help="Folder of the new run; default: runs/<run>-<n>.", show_default=False)
    ] = None,
    labels: LabelsOption = None,
    names: NamesOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
) -> None:
    """Add classes to a finished run, without its images and without training.

    The classifier is solved anew, in closed form, from sums over the features of the run's training images. A run
    stores these sums the first time they are needed, while its images are there; `regraft add-class RUN` does just
    that.
    """
    from regraft.cli.effects import say_unused
    from regraft.compute.numerics import choose_numerics
    from regraft.incremental.add_class import add_class as add
    from regraft.incremental.collect import keep_statistics
    from regraft.machine.heap import keep_freed_memory

    keep_freed_memory()
    numerics = choose_numerics(device, "fp32", threads)
    progress = Patience("features of")
    if photos is None:
        say_unused({"--out": out, "--labels": labels, "--names": names}, "no images of new classes were named")
        kept = keep_statistics(run, numerics=numerics, progress=progress)
        record = {"run": str(kept.path), "statistics": str(kept.statistics)}
        told = f"{kept.statistics}: statistics of the run's features, from which classes are added"
        say(as_json_text(record, indent=2) if as_json else told)
        return
    addition = add(run, photos, out=out, labels=labels, names=names, numerics=numerics, progress=progress)
    say(as_json_text(addition.to_dict(), indent=2) if as_json else str(addition))
