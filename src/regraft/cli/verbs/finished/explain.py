"""`regraft explain`: heat maps over images, one for each class that is explained."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from regraft import commit
from regraft.cli.destination import TABLES, next_folder, output_folder, plain_name
from regraft.cli.masks import listed
from regraft.cli.options import CheckpointOption, DeviceOption, ThreadsOption
from regraft.cli.say import say
from regraft.cli.stdin import lines_of_stdin
from regraft.run.file_suffix import file_suffix
from regraft.run.terminal import forgiving
from regraft.visible import one_line
from regraft.wording import quantity

if TYPE_CHECKING:
    from regraft.explanation.record import Explanation

__all__ = ["explain"]


def explain(
    run: Annotated[Path, typer.Argument(help="Run folder or model folder.", show_default=False)],
    inputs: Annotated[
        list[str],
        typer.Argument(help="Images, folders, patterns such as 'photos/*.jpg'; or - for paths on stdin."),
    ],
    classes: Annotated[
        list[str] | None,
        typer.Option(
            "--class",
            help="Class to explain; may be repeated; default: the predicted one, of masks the largest.",
            show_default=False,
        ),
    ] = None,
    top: Annotated[
        int | None,
        typer.Option("--top", min=1, help="Explain this many of the most probable classes; of masks, the largest."),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option("--out", help="Folder; default: explanations/<run>-<input>-<n>.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object per line.")] = False,
    checkpoint: CheckpointOption = None,
    device: DeviceOption = "auto",
    threads: ThreadsOption = None,
) -> None:
    """Show where in images the network finds what speaks for a class: a PNG with the image and its heat map.

    Works for convolutional networks, without naming a layer. Nothing is overwritten.
    """
    from regraft.errors import DataError
    from regraft.run.order import require_run_first

    require_run_first("explain", run, inputs)
    named = list(lines_of_stdin()) if inputs == ["-"] else listed(inputs)
    paths = list(dict.fromkeys(named))
    if len(paths) < len(named):
        say(f"left out: {len(named) - len(paths)} x named more than once", err=True)
    rows = _computed(run, paths, classes or (), top, (checkpoint, device, threads))
    root = _folder(run, inputs, out)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")
    sys.stdout = forgiving(sys.stdout)  # the files are the result: they are written whoever reads the lines
    try:
        num_without = _written(rows, _Folder(root, inputs), as_json=as_json)
    finally:
        if out is None:
            with suppress(OSError):  # where nothing was written
                root.rmdir()
    if num_without and num_without == len(paths):
        told = "its row says why" if num_without == 1 else "each is a row with an error that says why"
        raise DataError(
            f"There is no heat map of {'the image' if num_without == 1 else 'any image'}; {told}.",
            "",
            "check the paths and the files",
        )
    if num_without:
        say(f"no heat map of {quantity(num_without, 'image')}; each is a row with an error", err=True)


def _computed(
    run: Path,
    paths: Sequence[str],
    classes: Sequence[str],
    top: int | None,
    computing: tuple[str | None, str, int | None],
) -> Iterator[list[Explanation]]:
    from regraft.compute.numerics import choose_numerics
    from regraft.explanation.explain import explained
    from regraft.machine.heap import keep_freed_memory
    from regraft.models.store.folder import load_model

    checkpoint, device, threads = computing
    keep_freed_memory()
    model = load_model(run, checkpoint=checkpoint)
    return explained(model, paths, classes, top, choose_numerics(device, threads=threads))


def _folder(run: Path, inputs: Sequence[str], out: str | None) -> Path:
    """Return the output folder.

    Raises:
        SettingsError: `--out` names a file.
        StorageError: The folder cannot be made.
    """
    from regraft.errors import SettingsError

    if out is None:
        return next_folder(run, inputs, "explanations")
    if file_suffix(out, (*TABLES, ".png", ".jpg")):
        raise SettingsError(f"--out is {out!r}, and each image gets a file.", "a folder", "`--out FOLDER`")
    return output_folder(Path(out))


class _Folder:
    """Where the files go, each under the name of its image and its class."""

    def __init__(self, root: Path, inputs: Sequence[str]) -> None:
        from regraft.evaluation.mask_files import OutputNames

        self._root = root
        self._names = OutputNames(Path(inputs[0]) if len(inputs) == 1 else None)

    def write(self, rows: Sequence[Explanation]) -> list[str | None]:
        """Write the heat maps of one image; returns where, None for rows without one.

        Raises:
            StorageError: There is such a file already, or it cannot be written.
        """
        from regraft.explanation.colours import as_png

        name = self._names.name(rows[0].path)
        files: list[str | None] = []
        for row in rows:
            target = self._root / f"{name}-{plain_name(row.class_name or '')}.png"
            if str(target) in files:  # names that differ in nothing but signs that mean something to file systems
                target = target.with_stem(f"{target.stem}-{len(files) + 1}")
            if row.error is None:
                commit.write_new(target, as_png(row.overlay()))
            files.append(None if row.error is not None else str(target))
        return files


def _written(rows: Iterator[list[Explanation]], folder: _Folder, *, as_json: bool) -> int:
    """Write the maps and a line for each; returns of how many images there is none."""
    num_without = 0
    for own in rows:
        files = folder.write(own)
        num_without += not any(files)
        for row, file in zip(own, files, strict=True):
            sys.stdout.write(_json(row, file) if as_json else _text(row, file))
    return num_without


def _json(row: Explanation, file: str | None) -> str:
    return commit.as_json({**row.to_dict(), "file": file}) + "\n"


def _text(row: Explanation, file: str | None) -> str:
    path = one_line(row.path)
    if row.error is not None:
        return f"{path}\terror: {one_line(row.error)}\n"
    return f"{path}\t{one_line(row.class_name or '')}\t{row.probability or 0:.4f}\t{one_line(file or '')}\n"
