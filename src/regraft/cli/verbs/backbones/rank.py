"""`regraft rank`: which backbone suits one's own images."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from regraft import commit
from regraft.cli.options import DeviceOption, GroupOption, LabelsOption, NamesOption, ThreadsOption
from regraft.cli.say import say
from regraft.commit import as_json as as_json_text

__all__ = ["rank"]


def rank(
    photos: Annotated[str, typer.Argument(help="Images, as for `regraft train`.", show_default=False)],
    labels: LabelsOption = None,
    names: NamesOption = None,
    group: GroupOption = None,
    models: Annotated[
        list[str] | None,
        typer.Option(
            "--models",
            help="Names, patterns ('resnet*'), fast, balanced or best; NAME@none for random weights, NAME@FILE for "
            "others. Default: what has weights on this machine, and those that suit the budget from the hub.",
            show_default=False,
        ),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            "--budget", help="Time for all of it, e.g. 60s: on fewer images where need be.", show_default=False
        ),
    ] = None,
    image_size: Annotated[
        int | None, typer.Option("--image-size", min=1, help="Side in pixels; default: each network's own.")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of the folds, and of which images are taken.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Also write a page with a plot of accuracy against cost.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
) -> None:
    """Compare backbones on images without training them: linear classifiers on their features, cross-validated.

    Beside the accuracy with its 95 % interval: log loss, LogME, H-score, seconds for 1,000 images, and MB of weights.
    """
    from regraft.data.open import open_data
    from regraft.report.html.markup import PAGE_MARK

    if out is not None:
        commit.require_replaceable(out, PAGE_MARK)  # before minutes are spent
    data = open_data(photos, seed=seed, labels=labels, names=names, group=group)

    from regraft.compute.numerics import choose_numerics
    from regraft.machine.heap import keep_freed_memory
    from regraft.ranking.rank import rank as ranked

    keep_freed_memory()
    chosen = None if models is None else [name for text in models for name in text.split(",") if name]
    numerics = choose_numerics(device, threads=threads)
    found = ranked(data, chosen, budget=budget, image_size=image_size, seed=seed, numerics=numerics)
    if out is not None:
        from regraft.report.ranking import write_ranking

        write_ranking(out, found.to_dict())
    say(as_json_text(found.to_dict(), indent=2) if as_json else found.render())
    if out is not None:
        say(f"report: {out}", err=True)
