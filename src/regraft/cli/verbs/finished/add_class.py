"""`regraft add-class`: new classes for a finished run, without its images and without training."""

from __future__ import annotations

import logging
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from regraft.cli.options import DeviceOption, LabelsOption, NamesOption, RunArgument, ThreadsOption
from regraft.cli.say import say

__all__ = ["add_class"]

_LINE_SECONDS = 10.0


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
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
) -> None:
    """Add classes to a finished run, without its images and without training.

    The classifier is solved anew, in closed form, from sums over the features of the run's training images. A run
    stores these sums the first time they are needed, while its images are there; `regraft add-class RUN` does just
    that.
    """
    from regraft.cli.effects import say_unused
    from regraft.compute.numerics import choose_numerics, keep_freed_memory
    from regraft.incremental.add_class import add_class as add
    from regraft.incremental.collect import keep_statistics

    keep_freed_memory()
    numerics = choose_numerics(device, "fp32", threads)
    progress = _Patience()
    if photos is None:
        say_unused({"--out": out, "--labels": labels, "--names": names}, "no images of new classes were named")
        kept = keep_statistics(run, numerics=numerics, progress=progress)
        say(f"{kept.statistics}: statistics of the run's features, from which classes are added")
        return
    say(str(add(run, photos, out=out, labels=labels, names=names, numerics=numerics, progress=progress)))


class _Patience:
    """A line on stderr every ten seconds: how many images have passed the network."""

    def __init__(self) -> None:
        self._next = time.monotonic() + _LINE_SECONDS

    def __call__(self, done: int, total: int) -> None:
        if time.monotonic() >= self._next and logging.getLogger("regraft").isEnabledFor(logging.INFO):
            self._next = time.monotonic() + _LINE_SECONDS
            print(f"features of {done}/{total} images", file=sys.stderr, flush=True)
