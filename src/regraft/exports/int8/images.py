"""The images that int8 is fitted to and measured on: those of the run, or of a folder that is named instead."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from regraft.data.cache.stream import DecodedStream
from regraft.data.dataset import DataSet, Split
from regraft.data.decode.decode import PixelProgram
from regraft.data.open import open_undivided
from regraft.errors import DataError, SettingsError
from regraft.evaluation.labelled_rows import (
    MaskRows,
    Rows,
    labels_among,
    mask_rows,
    own_mask_rows,
    own_rows,
    own_table,
)
from regraft.exports.seal import Seal
from regraft.run.folder import RunFolder
from regraft.run.folds_folder import is_folds
from regraft.run.invocation import typed_path

__all__ = ["Images", "decoded", "images_of"]

Pixels = npt.NDArray[np.uint8]
_MOST = 192  # images: two thirds of them for the ranges
_MOST_WITH_MASKS = 48  # whose pixels are all answers, and which are larger
_BATCH = 16
_FEWEST = 8


@dataclass(frozen=True, eq=False)
class Images:
    """What int8 is fitted to and measured on.

    Attributes:
        fitted: Images of the network's size, uint8 (N, h, w, C), whose activations give the ranges.
        compared: Others of the same kind, by which one of several ways is chosen.
        rows: Those that are measured, with their labels or masks; none of them is among the others.
        own: Whether they are the validation images of the run.
    """

    fitted: Pixels
    compared: Pixels
    rows: Rows | MaskRows
    own: bool


def images_of(run: str | Path, seal: Seal, folder: str | Path | None) -> Images:
    """Return the images of a run: of its training split for fitting, of its validation split for measuring.

    Args:
        run: Its folder.
        seal: Of its sealed file.
        folder: Labelled images, or images with masks, that take their place: a quarter of them, up to 192 (48), for
            fitting.

    Raises:
        SettingsError: It is not a run, and no folder was named.
        DataError: The images are gone, or are too few.
    """
    most = _MOST_WITH_MASKS if seal.output == "segmentation" else _MOST
    fitting, rows = _of_run(run, seal, most) if folder is None else _of_folder(folder, run, seal, most)
    pixels = _readable(fitting, seal.preprocessing.pixels, run, folder)
    third = max(1, len(pixels) // 3)
    return Images(pixels[third:], pixels[:third], rows, folder is None)


def _of_run(run: str | Path, seal: Seal, most: int) -> tuple[Sequence[str], Rows | MaskRows]:
    """Return training images, and the validation images with what is true of them."""
    if is_folds(run) or not RunFolder(Path(run)).splits.is_file():
        raise SettingsError(
            f"{str(run)!r} does not know its training images, and int8 is fitted to such.",
            "a run's folder",
            f"name labelled images: `regraft export {typed_path(run)} --int8 --calibrate FOLDER`",
        )
    found = RunFolder(Path(run))
    if seal.output == "segmentation":
        masked = [own_mask_rows(found, seal.class_names, split=split) for split in ("train", "val")]
        return _spread(masked[0].paths, most), masked[1]
    multilabel = seal.output == "multilabel"
    train, val = (own_rows(found, seal.class_names, multilabel=multilabel, split=split) for split in ("train", "val"))
    return _spread(train.paths, most), val


def _of_folder(folder: str | Path, run: str | Path, seal: Seal, most: int) -> tuple[Sequence[str], Rows | MaskRows]:
    """Return the images of a folder that are fitted to, and the others with what is true of them."""
    found = RunFolder(Path(run))
    usual = own_table(found) if seal.output == "segmentation" and found.splits.is_file() else None
    data = open_undivided(folder, usual_table=usual)
    split = next(data.splits[name] for name in ("test", "val", "train") if name in data.splits)
    order = np.random.default_rng(0).permutation(len(split.paths))
    num = min(len(order) // 4, most)
    return [split.paths[place] for place in order[:num]], _rows(data, split, np.sort(order[num:]), seal)


def _rows(data: DataSet, split: Split, places: npt.NDArray[np.intp], seal: Seal) -> Rows | MaskRows:
    paths = [split.paths[place] for place in places]
    if seal.output == "segmentation":
        rows = mask_rows("calibrate", data, split, seal.class_names)
        return replace(rows, paths=paths, masks=[split.masks[place] for place in places])
    labels = labels_among(split.labels, data, seal.class_names, multilabel=seal.output == "multilabel")
    return Rows("calibrate", paths, labels[places])


def decoded(paths: Sequence[str], program: PixelProgram) -> Iterator[tuple[Pixels, list[bool]]]:
    """Yield batches of decoded images, with which of them can be read."""
    stream = DecodedStream(paths, program, batch_size=_BATCH)
    try:
        for batch in stream:
            yield batch.images, [reason is None for reason in batch.reasons]
    finally:
        stream.close()


def _spread(paths: Sequence[str], most: int) -> list[str]:
    """Return images from all over a split, whose classes follow one another."""
    order = np.random.default_rng(0).permutation(len(paths))
    return [paths[place] for place in order[:most]]


def _readable(paths: Sequence[str], program: PixelProgram, run: str | Path, folder: str | Path | None) -> Pixels:
    parts = [images[np.array(which, bool)] for images, which in decoded(paths, program)] if paths else []
    num = sum(map(len, parts))
    if num < max(_FEWEST, len(paths) // 2):
        what = f"training images of {str(run)!r}" if folder is None else f"images of {str(folder)!r} for fitting int8"
        raise DataError(
            f"Of {len(paths)} {what}, {num} can be read.",
            f"at least {_FEWEST}, and half of them",
            "put them back" + ("; or name other labelled images with `--calibrate FOLDER`" if folder is None else ""),
        )
    return np.concatenate(parts)
