"""`check`: everything that can be told of a data set before it is trained on."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from regraft.checkup.checkup import CheckedImages, Checkup
from regraft.checkup.copies.groups import find_groups
from regraft.checkup.copies.issues import copy_issues
from regraft.checkup.faults import image_faults
from regraft.checkup.features import Described, describe
from regraft.checkup.issue import LEVELS, Issue
from regraft.checkup.labels import class_issues, conflicts, counts_by_split, suspicions
from regraft.checkup.masks import MasksSeen, mask_issues, survey_masks
from regraft.checkup.rows import Rows
from regraft.checkup.survey import Survey, survey
from regraft.compute.numerics import Numerics, choose_numerics
from regraft.data.check import check as basic_findings
from regraft.data.dataset import DataSet, Quarantined
from regraft.data.decode.decode import PixelProgram, Resize
from regraft.data.open import open_data, open_undivided
from regraft.errors import DataError

__all__ = ["check"]

Progress = Callable[[int, int], None]
_SIZE = (224, 224)


def check(
    data: DataSet | str | os.PathLike[str],
    *,
    model: str | None = None,
    resize: Resize = "squash",
    image_size: int | tuple[int, int] | None = None,
    seed: int = 0,
    numerics: Numerics | None = None,
    progress: Progress = lambda done, total: None,
    **options: Any,
) -> Checkup:
    """Look for what is wrong with a data set: its files, its labels, its splits. Nothing is changed.

    Args:
        data: The images, opened, or as `open_data` takes them.
        model: The network whose features images are compared by: a name, with `@FILE` or `@none` behind it for other
            weights than the pretrained ones; `none` compares without features, and judges no labels. None takes the
            default network where its weights can be had.
        resize: How images come to the network's size, of which is told what is lost.
        image_size: That size: a side, or (height, width), in pixels; None takes 224.
        seed: Which splits to draw where the source has none, as `open_data` does.
        numerics: What to compute with; None chooses for this machine.
        progress: Called with the number of images that are decoded, and of all.
        **options: How images are labelled, as `open_data` takes it: `labels`, `names`, `masks`, `class_table`,
            `ignore`.

    Raises:
        DataError: There are no labelled images.
        SettingsError: Options that contradict each other, or a network that cannot be used.
    """
    began = time.perf_counter()
    refusal, data = ("", data) if isinstance(data, DataSet) else _opened(data, seed, options)
    rows = Rows(data)
    numerics = numerics or choose_numerics()
    seen = survey(rows.paths, threads=numerics.threads, progress=progress)
    side = image_size or _SIZE
    program = PixelProgram((side, side) if isinstance(side, int) else side, resize)
    masks = survey_masks(rows, numerics.threads) if data.segmentation else None
    found = _Images(rows, seen, program, describe(rows, seen.good, model, numerics), masks)
    issues = [*_refused(refusal), *_basic(found), *class_issues(counts_by_split(rows)), *_of_images(found)]
    groups = _groups(found)
    issues, untold = _of_features(found, groups, issues)
    return Checkup(
        data=data.name,
        root=data.root,
        splits=counts_by_split(rows),
        num_images={name: len(split) for name, split in data.splits.items()},
        issues=_in_order(issues),
        not_computed=tuple(untold),
        images=CheckedImages(rows, seen.good, tuple(groups)),
        network="" if isinstance(found.described, str) else found.described.network,
        seconds=time.perf_counter() - began,
    )


class _Images(NamedTuple):
    rows: Rows
    seen: Survey
    program: PixelProgram
    described: Described | str
    masks: MasksSeen | None = None


def _opened(source: str | os.PathLike[str], seed: int, options: dict[str, Any]) -> tuple[str, DataSet]:
    """Return the data set, and why it could not be trained on as it is; empty where it can."""
    try:
        return "", open_data(source, seed=seed, **options)
    except DataError as error:
        try:
            return "\n".join([error.what, *error.details]), open_undivided(source, **options)
        except DataError:
            raise error from None


def _refused(refusal: str) -> Iterator[Issue]:
    if refusal:
        yield Issue("not-trainable", "Cannot be trained on", "error", refusal)


def _basic(found: _Images) -> Iterator[Issue]:
    """Yield what `data.check` says of the rows that can be read, but for the files that cannot."""
    data, rows, reasons = found.rows.data, found.rows, found.seen.reasons
    gone = [Quarantined(rows.paths[row], reasons[row], rows.splits[rows.split_of[row]]) for row in reasons]
    left = replace(data.without(gone), quarantined=())
    if found.masks is not None:
        having = (found.masks.pixels > 0).astype(np.uint8)
        splits = {
            name: replace(split, labels=having[rows.split_of == at])
            for at, (name, split) in enumerate(data.splits.items())
        }
        left = replace(data, splits=splits)
    for finding in basic_findings(left):
        yield Issue("data", "The data set as a whole", finding.level, finding.text)


def _of_images(found: _Images) -> Iterator[Issue]:
    yield from image_faults(found.rows, found.seen, found.program)
    yield from conflicts(found.rows, found.seen)


def _groups(found: _Images) -> list[npt.NDArray[np.int64]]:
    seen, described = found.seen, found.described
    sides = np.minimum(seen.measures["width"], seen.measures["height"])
    if isinstance(described, str):
        return find_groups(seen.thumbnails, seen.digests, sides, seen.good)
    return find_groups(seen.thumbnails, seen.digests, sides, described.rows, described.features)


def _of_features(
    found: _Images, groups: Sequence[npt.NDArray[np.int64]], issues: list[Issue]
) -> tuple[list[Issue], list[str]]:
    """Return the issues with those of copies and labels, and what could not be told."""
    rows, seen, described, untold = found.rows, found.seen, found.described, []
    if isinstance(described, str):
        untold.append(f"near copies by features (they are found by hashes alone), wrong labels, outliers: {described}")
    issues = [*issues, *copy_issues(rows, groups, seen.digests)]
    issues += mask_issues(rows, found.masks, groups) if found.masks is not None else ()
    for told in () if isinstance(described, str) else suspicions(rows, described):
        if isinstance(told, str):
            untold.append(told)
        else:
            issues.append(told)
    return issues, untold


def _in_order(issues: Iterable[Issue]) -> tuple[Issue, ...]:
    return tuple(sorted(issues, key=lambda issue: LEVELS.index(issue.level)))
