"""The images that are added to a run: those that it has not seen, once each, of one class each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from regraft.data.dataset import DataSet, Split
from regraft.errors import DataError
from regraft.evaluation.seen import content_digests, seen_images
from regraft.incremental.collect import Progress, keys_of
from regraft.incremental.features import FeatureProgram
from regraft.incremental.sample import sampled
from regraft.incremental.statistics import Statistics, collected
from regraft.run.folder import RunFolder
from regraft.wording import quantity

__all__ = ["NewImages", "new_images"]


@dataclass(frozen=True)
class NewImages:
    """Images that are added.

    Attributes:
        statistics: Those of their features.
        split: Their files, and their labels among the class names of the statistics.
        digests: The first bytes of each file's SHA-256.
        notes: What was left out, a line each.
    """

    statistics: Statistics
    split: Split
    digests: list[bytes]
    notes: tuple[str, ...]


def new_images(run: RunFolder, data: DataSet, program: FeatureProgram, progress: Progress) -> NewImages:
    """Return the images to add.

    Those that the run has in a split are left out: learnt from or validated on, they would count twice, and what the
    run is tested on must stay new to it.

    Args:
        run: The run that they are added to.
        data: The images: of a source with splits the training split.
        program: What computes the features.
        progress: Called with (images done, images in all).

    Raises:
        DataError: An image has more than one class, or no image is left.
    """
    if data.segmentation or data.multilabel:
        raise DataError(
            f"The images of {data.source or data.root!r} have {'masks' if data.segmentation else 'several labels'}.",
            "one class for each image: a folder for each class, a list or a table",
            "name such images",
        )
    split = next(data.splits[name] for name in ("train", "test", "val") if name in data.splits)
    digests = content_digests(split.paths)
    first = {digest: row for row, digest in reversed(list(enumerate(digests))) if digest}
    _require_one_class(split, data, digests, first)
    tested = _test_digests(run)
    seen = ~seen_images(run, split.paths).unseen
    held_out = np.array([digest in tested for digest in digests], dtype=bool) & ~seen
    seen |= held_out
    twice = np.array([first.get(digest, row) != row for row, digest in enumerate(digests)], dtype=bool) & ~seen
    wanted = np.flatnonzero(~seen & ~twice)
    found = program([split.paths[row] for row in wanted.tolist()], progress)
    unreadable = {split.paths[int(wanted[place])]: reason for place, reason in found.reasons.items()}
    num_tested = int(held_out.sum())
    notes = tuple(_notes(int(seen.sum()) - num_tested, num_tested, int(twice.sum()), unreadable))
    rows = wanted[found.rows]
    if not len(rows):
        raise DataError(
            f"No image of {data.source or data.root!r} can be added.",
            "at least one readable image that the run has not seen",
            "check the files",
            details=notes[:20],
        )
    used, labels = np.unique(split.labels[rows], return_inverse=True)
    names = tuple(data.class_names[number] for number in used.tolist())
    kept = [digests[row] for row in rows.tolist()]
    sample = sampled(found.values, labels, keys_of(kept), len(names), counted=True)
    statistics = collected(names, found.values, labels, sample)
    return NewImages(statistics, Split([split.paths[row] for row in rows.tolist()], labels), kept, notes)


def _test_digests(run: RunFolder) -> set[bytes]:
    """Return the digests of the run's test images, as far as the files are there; no record holds them."""
    test = DataSet.from_dict(run.read(run.splits)).test
    return set() if test is None else {digest for digest in content_digests(test.paths) if digest}


def _notes(num_seen: int, num_tested: int, num_twice: int, unreadable: Mapping[str, str]) -> Iterator[str]:
    """Yield what was left out, for people."""
    if num_seen:
        yield f"left out: {quantity(num_seen, 'image')} that the run has in its training or validation split"
    if num_tested:
        yield f"left out: {quantity(num_tested, 'image')} that the run has in its test split"
    if num_twice:
        yield f"left out: {quantity(num_twice, 'duplicate')}, byte for byte, of other new images"
    yield from (f"left out: {path!r} {reason}" for path, reason in unreadable.items())


def _require_one_class(split: Split, data: DataSet, digests: Sequence[bytes], first: Mapping[bytes, int]) -> None:
    """Raise DataError where one image is under two classes."""
    for row, digest in enumerate(digests):
        other = first.get(digest, row)
        if split.labels[other] != split.labels[row]:
            names = [data.class_names[split.labels[place]] for place in (other, row)]
            raise DataError(
                f"{split.paths[other]!r} ({names[0]!r}) and {split.paths[row]!r} ({names[1]!r}) are the same image.",
                "one class for each image",
                "remove one of them",
            )
