"""What a run's own pixels and features say of its images: leaks between splits, and labels that are probably wrong."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from regraft import commit
from regraft.checkup.checkup import Checkup
from regraft.checkup.copies.groups import joined, near_pairs, of_some_detail
from regraft.checkup.copies.issues import copy_issues
from regraft.checkup.copies.thumbnails import Thumbnails, thumbnail_of
from regraft.checkup.features import Described
from regraft.checkup.issue import Issue
from regraft.checkup.labels import counts_by_split, suspicions
from regraft.checkup.rows import Rows
from regraft.checkup.survey import survey
from regraft.data.cache.cache import PixelCache
from regraft.data.dataset import DataSet, Split
from regraft.data.decode.image_file import opened_or_reason, read_file
from regraft.errors import DataError
from regraft.machine.processes import is_main_process
from regraft.training.callbacks import Callback
from regraft.training.views import RunView, StageView

__all__ = ["RunCheckup"]

_log = logging.getLogger("regraft")
_CHUNK = 64
_LEAST_COSINE = 0.85  # of candidates that no hash brings up: the short form looks at the likeliest alone
_LEAKS = ("leak-test-train", "leak-val-train", "leak-test-val")

Places = npt.NDArray[np.int64]


class RunCheckup(Callback):
    """Looks at the features of a head that was solved, once, and writes `check.json` into the run's folder.

    Pixels and features are those at hand; of a test split, each image is decoded once for its thumbnail. Where there
    are none (masks, heads that are not solved, features that are not kept), nothing is written.
    """

    def on_stage_end(self, stage: StageView) -> None:
        """Check the run's images after the stage of a solved head."""
        session = stage.session
        target = session.run_folder.check
        if not (stage.is_solved and is_main_process()) or target.exists():
            return
        if any(stage.source.kept.of(name) is None for name in ("train", "val")):
            return  # they would have to be computed again
        try:
            found = _checkup(stage, session)
        except (
            ArithmeticError,
            DataError,
            LookupError,
            MemoryError,
            OSError,
            RuntimeError,
            TypeError,
            ValueError,
        ) as error:
            _log.debug("the images were not checked (%s: %s)", type(error).__name__, error)
            return
        if found is not None:
            commit.write_json(target, found.to_dict())
            for issue in found.issues:
                _log.info("%s: %s", issue.level, issue.text)


def _checkup(stage: StageView, session: RunView) -> Checkup | None:
    began = time.perf_counter()
    caches, labels = dict(session.pixels), dict(session.labels)
    if session.palette is not None or any(found.ndim != 1 for found in labels.values()):
        return None
    folder = session.run_folder
    stored = DataSet.from_dict(folder.read(folder.splits) or {})
    splits = {name: Split(cache.paths, labels[name]) for name, cache in caches.items()}
    if stored.test is not None and "test" not in splits and stored.class_names == tuple(session.class_names):
        splits["test"] = stored.test
    rows = Rows(DataSet(stored.name, stored.root, tuple(session.class_names), splits))
    described = _described(stage, rows)
    issues = [*_leaks(rows, caches, described)]
    issues += [told for told in suspicions(rows, described) if isinstance(told, Issue) and told.kind == "label-error"]
    return Checkup(
        data=folder.path.name,
        root=stored.root,
        splits=counts_by_split(rows),
        num_images={name: len(split) for name, split in splits.items()},
        issues=tuple(issues),
        network="the run's backbone",
        seconds=time.perf_counter() - began,
    )


def _described(stage: StageView, rows: Rows) -> Described:
    """Return the features of the splits that the stage has them of."""
    parts: list[Any] = []
    places = []
    for name in ("train", "val"):
        features, _ = stage.source.matrix(name)
        parts.append(features.float().reshape(*features.shape[:2], -1).mean(2).cpu().numpy())
        places.append(np.flatnonzero(rows.split_of == rows.splits.index(name)))
    return Described("the run's backbone", np.concatenate(places), np.concatenate(parts))


def _leaks(rows: Rows, caches: dict[str, PixelCache], described: Described) -> list[Issue]:
    """Return which images have a near copy in another split."""
    if any(cache.streams or cache.program.row_shape[-1] != 3 for cache in caches.values()):
        return []
    thumbnails = _thumbnails(rows, caches)
    num_decoded = sum(map(len, caches.values()))
    others = survey(rows.paths[num_decoded:])  # the test split, which a run decodes when it is over
    for place, number in enumerate(others.thumbnails.inner().tolist()):
        whole, inside = others.thumbnails.take(np.array([place, number]))
        thumbnails.keep(num_decoded + place, whole, inside if number != place else None)
    everything = np.arange(len(rows))
    pairs = near_pairs(thumbnails, everything, between=rows.split_of)
    by_features = near_pairs(
        thumbnails, described.rows, described.features, between=rows.split_of[described.rows], least=_LEAST_COSINE
    )
    pairs = np.concatenate([pairs, described.rows[by_features]])
    digests = [bytes(digest) for cache in caches.values() for digest in cache.digests] + others.digests
    groups = joined(of_some_detail(pairs, lambda row: _side(rows.paths[row]), digests))
    return [issue for issue in copy_issues(rows, groups, digests) if issue.kind in _LEAKS]


def _side(path: str) -> int:
    """Return the smaller side of an image file in pixels; that of a file that has gone since is of no matter."""
    data = read_file(path)
    found = data if isinstance(data, str) else opened_or_reason(data, lambda image: min(image.size), deep=True)
    return sys.maxsize if isinstance(found, str) else found


def _thumbnails(rows: Rows, caches: dict[str, PixelCache]) -> Thumbnails:
    thumbnails = Thumbnails(len(rows))
    start = 0
    for cache in caches.values():
        for first in range(0, len(cache), _CHUNK):
            places = np.arange(first, min(first + _CHUNK, len(cache)))
            pixels = np.empty((len(places), *cache.program.row_shape), dtype=np.uint8)
            cache.fill(places, pixels)
            for place, image in zip(places.tolist(), pixels, strict=True):
                thumbnails.keep(start + place, *thumbnail_of(Image.fromarray(image).convert("L")))
        start += len(cache)
    return thumbnails
