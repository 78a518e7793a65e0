"""`regraft check`: what is wrong with images and labels before they are trained on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from regraft import commit
from regraft.cli.options import (
    ClassTableOption,
    DeviceOption,
    GroupOption,
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
from regraft.wording import quantity

if TYPE_CHECKING:
    from regraft.checkup.checkup import Checkup

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
    fix: Annotated[
        str | None,
        typer.Option(
            "--fix",
            help="split: write a split without leaks to OUT/split.csv; quarantine: lists of what to leave out, and "
            "OUT/kept.csv of the rest. No image is touched.",
            show_default=False,
        ),
    ] = None,
    group: GroupOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="End with exit code 3 where there is a warning.")] = False,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
) -> None:
    """Look for what is wrong with images, labels and splits: damage, copies, leaks, wrong labels. Changes nothing."""
    from regraft.checkup.check import check as checked
    from regraft.compute.numerics import choose_numerics
    from regraft.report.html.markup import PAGE_MARK

    _require_fix(fix, group, out)
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
        _write_fix(found, fix, group, out, seed)
        say(f"report: {write_checkup(out / 'check.html', found.to_dict())}", err=True)
    if strict and not found.is_sound:
        raise typer.Exit(DataError.exit_code)


def _require_fix(fix: str | None, group: str | None, out: Path | None) -> None:
    from regraft.errors import SettingsError

    if fix not in (None, "split", "quarantine"):
        raise SettingsError(f"--fix {fix} is not something that can be written.", "split or quarantine")
    if fix is not None and out is None:
        raise SettingsError(f"--fix {fix} writes files, and no folder was named.", "", f"`--fix {fix} --out FOLDER`")
    if group is not None and fix != "split":
        raise SettingsError("--group is about a split, and none is to be written.", "", "`--fix split --out FOLDER`")


def _write_fix(found: Checkup, fix: str | None, group: str | None, out: Path, seed: int) -> None:
    if fix == "split":
        commit.write_text(out / "split.csv", found.split_table(group, seed=seed))
        say(f"split: {out / 'split.csv'}; `regraft train {out / 'split.csv'}` trains on it", err=True)
    if fix == "quarantine":
        gone = found.left_out()
        for kind in sorted(set(gone.values())):
            paths = "".join(f"{path}\n" for path, its in gone.items() if its == kind)
            commit.write_text(out / "quarantine" / f"{kind}.txt", paths)
        commit.write_text(out / "kept.csv", found.kept_table())
        num = quantity(len(gone), "image")
        say(f"quarantine: {num} listed in {out / 'quarantine'}; {out / 'kept.csv'} has the rest", err=True)


def _resize(word: str) -> str:
    from regraft.errors import SettingsError

    if word not in ("squash", "crop", "pad"):
        raise SettingsError(f"--resize {word} is not a resize policy.", "squash, crop or pad")
    return word
