"""`regraft check`: what is wrong with images and labels before they are trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from regraft import commit
from regraft.cli.options import (
    ClassTableOption,
    DeviceOption,
    IgnoreOption,
    LabelsOption,
    MasksOption,
    NamesOption,
    ThreadsOption,
    ignored_items,
)
from regraft.cli.say import Patience, say
from regraft.commit import as_json as as_json_text
from regraft.errors import DataError

__all__ = ["check"]


def check(
    photos: Annotated[str, typer.Argument(help="Images, as for `regraft train`.", show_default=False)],
    labels: LabelsOption = None,
    names: NamesOption = None,
    masks: MasksOption = None,
    class_table: ClassTableOption = None,
    ignore: IgnoreOption = None,
    model: Annotated[
        str | None,
        typer.Option(
            "--model",
            help="Network whose features images are compared by, NAME or NAME@FILE; none goes without. Default: "
            "tf_efficientnet_lite0.",
            show_default=False,
        ),
    ] = None,
    resize: Annotated[str, typer.Option("--resize", help="squash, crop or pad: what is lost by it.")] = "squash",
    image_size: Annotated[
        int | None, typer.Option("--image-size", min=1, help="Side in pixels; default: 224.", show_default=False)
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Seed of splits that the source does not have.")] = 0,
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Folder for check.html, check.json and check.csv.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="End with exit code 3 where there is a warning.")] = False,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
) -> None:
    """Look for what is wrong with images, labels and splits: damage, copies, leaks, wrong labels. Changes nothing."""
    from regraft.checkup.check import check as checked
    from regraft.compute.numerics import choose_numerics
    from regraft.report.html.markup import PAGE_MARK

    if out is not None:
        commit.require_replaceable(out / "check.html", PAGE_MARK)  # before minutes are spent
    found = checked(
        photos,
        model=model,
        resize=_resize(resize),  # type: ignore[arg-type]
        image_size=image_size,
        seed=seed,
        numerics=choose_numerics(device, threads=threads),
        progress=Patience("decoding"),
        labels=labels,
        names=names,
        masks=masks,
        class_table=class_table,
        ignore=ignored_items(ignore),
    )
    say(as_json_text(found.to_dict(), indent=2) if as_json else found.render())
    if out is not None:
        from regraft.report.checkup import write_checkup

        commit.write_json(out / "check.json", found.to_dict())
        commit.write_text(out / "check.csv", found.to_csv())
        say(f"report: {write_checkup(out / 'check.html', found.to_dict())}", err=True)
    if strict and not found.is_sound:
        raise typer.Exit(DataError.exit_code)


def _resize(word: str) -> str:
    from regraft.errors import SettingsError

    if word not in ("squash", "crop", "pad"):
        raise SettingsError(f"--resize {word} is not a resize policy.", "squash, crop or pad")
    return word
