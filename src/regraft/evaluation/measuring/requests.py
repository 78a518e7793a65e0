"""What cannot be asked of `evaluate`: options that would have no effect, each with what to type instead."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from regraft.errors import SettingsError
from regraft.run.folder import RunFolder
from regraft.run.folds_folder import FoldsFolder
from regraft.run.invocation import typed_path

__all__ = ["require_effect", "require_masks", "require_no_slices", "require_out_of_fold"]


def require_out_of_fold(
    folds: FoldsFolder, split: str | None, checkpoint: str | None, tta: str | None, slice_by: str | None
) -> None:
    """Raise where more is asked of a cross-validation's out-of-fold rows than they hold."""
    if tta is not None:
        raise SettingsError(
            f"{str(folds.path)!r} is a cross-validation, whose out-of-fold rows were predicted without other views.",
            "a fold, a test split, or other images, to look at in several views",
            f"`regraft evaluate {typed_path(folds.path / 'fold-1')} --tta {tta}` for one fold",
        )
    if slice_by is not None:
        raise SettingsError(
            f"Slices by {slice_by!r} were asked for, and {str(folds.path)!r} is a cross-validation.",
            "a fold, a test split, or other images",
            f"`regraft evaluate {typed_path(folds.path / 'fold-1')} --slice {slice_by}` for one fold",
        )
    if checkpoint is not None:
        raise SettingsError(
            f"{str(folds.path)!r} is a cross-validation, whose figures are those of the networks that its folds chose.",
            "a fold, a test split, or other images, to evaluate other networks on",
            f"`regraft evaluate {typed_path(folds.path / 'fold-1')} --checkpoint {checkpoint}` for one fold",
        )
    if split not in (None, "val"):
        raise SettingsError(
            f"{str(folds.path)!r} is a cross-validation, and every fold has another split {split!r}.",
            "`val`, which is all images out of fold, or `test` where there is one",
            f"`regraft evaluate {typed_path(folds.path / 'fold-1')} --split {split}` for one fold",
        )


def require_masks(said: Mapping[str, object], run: RunFolder, data: str | Path | None, *, names_pixels: bool) -> None:
    """Raise where masks are described and none of another source are read."""
    given = [f"--{name.replace('_', '-')}" for name, value in said.items() if value is not None]
    if given and (data is None or not names_pixels):
        why = "the run's own masks are measured as it has read them" if names_pixels else "its model names whole images"
        raise SettingsError(
            f"{' and '.join(given)} was given for {str(run.path)!r}, and {why}.",
            "these options describe the masks of other images, for a run on images with masks",
            f"Leave {'them' if len(given) > 1 else 'it'} out"
            + (
                f", or name the other images: `regraft evaluate {typed_path(run.path)} IMAGES`."
                if names_pixels
                else "."
            ),
        )


def require_effect(
    split: str | None, files: Mapping[str, object], run: RunFolder, data: str | Path | None, *, names_pixels: bool
) -> None:
    """Raise where a split of the run is named beside other data, or labels are described where none are read."""
    if split is not None and data is not None:
        raise SettingsError(
            f"The split {split!r} was given together with other data, {os.fspath(data)!r}.",
            "one or the other: --split names a part of the run's own data",
            f"leave --split out, or name the folder of that part: `regraft evaluate {typed_path(run.path)} "
            f"{typed_path(Path(data) / split)}`",
        )
    given = [name for name, value in files.items() if value is not None and (data is None or name == "labels")]
    if given and (data is None or names_pixels):
        why = "the run's own images are measured as it has read them" if data is None else "its labels are masks"
        raise SettingsError(
            f"--{given[0]} was given, and {why}.",
            "the option describes the labels of other images, for a run that names whole images",
            "Leave it out" + (", or name the other images." if data is None else ", or name --masks."),
        )


def require_no_slices(slice_by: str | None, run: RunFolder) -> None:
    """Raise where slices are asked of a run that names pixels."""
    if slice_by is not None:
        raise SettingsError(
            f"Slices by {slice_by!r} were asked for, and {str(run.path)!r} names the class of every pixel.",
            "a run that names whole images",
            "leave --slice out: predictions/ has the mean IoU of each image",
        )
