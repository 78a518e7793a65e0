"""Which images of other data a run has seen: those of its training and validation splits, by content."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import compress
from typing import Any

import numpy as np
import numpy.typing as npt

from regraft.data.dataset import DataSet
from regraft.data.decode.image_file import read_file
from regraft.data.files import access
from regraft.errors import DataError
from regraft.machine.budget import num_cpus
from regraft.machine.prefetch import thread_pool
from regraft.run.folder import RunFolder
from regraft.wording import quantity

__all__ = ["SEEN_LABEL", "SEEN_SPLITS", "Seen", "content_digests", "contents_record", "seen_images", "stored_contents"]

SEEN_SPLITS = ("train", "val")  # what a run learns from, and what chooses its best epoch
SEEN_LABEL = ", seen in training"  # behind the name of measures on such images
_NUM_BYTES = 16  # of a SHA-256; two files that differ and agree in these are not to be expected


@dataclass(frozen=True)
class Seen:
    """What a run has seen of some images.

    Attributes:
        splits: For each image `train`, `val`, or empty where the run has not seen it.
        num_lost: Images of the run whose contents are not known any more, so that it cannot be told.
    """

    splits: tuple[str, ...]
    num_lost: int = 0

    def count(self, split: str) -> int:
        """Return the number of these images that are in a split of the run."""
        return self.splits.count(split)

    @property
    def unseen(self) -> npt.NDArray[np.bool_]:
        """Which of the images are new to the run, bool (images,)."""
        return np.array([not split for split in self.splits], dtype=bool)

    def among(self, readable: Sequence[bool]) -> Seen:
        """Return the record of the readable images alone: metrics are of no others."""
        return replace(self, splits=tuple(compress(self.splits, readable)))

    def to_dict(self) -> dict[str, Any]:
        """Return the counts, for the metrics."""
        lost = {"unknown": self.num_lost} if self.num_lost else {}
        return {**{split: self.count(split) for split in SEEN_SPLITS}, **lost}

    def notes(self) -> list[str]:
        """Return sentences for people."""
        total, num = len(self.splits), len(self.splits) - int(self.unseen.sum())
        where = f"in the run's training split ({self.count('train')}) or validation split ({self.count('val')})"
        said = []
        if num == total:
            said.append(
                f"{'The only image is' if total == 1 else f'All {total} images are'} {where}, byte for byte: these "
                "figures show what the model has memorized, not how good it is on new images."
            )
        elif num:
            said.append(
                f"{num} of {total} images {'is' if num == 1 else 'are'} {where}, byte for byte: counted apart, and "
                f"these figures are of the {quantity(total - num, 'other')}."
            )
        if self.num_lost:
            one, several = "image {} is no longer where it was", "images {} are no longer where they were"
            lost = quantity(self.num_lost, one, several).format("of the run's training and validation splits")
            said.append(f"{lost}: it is unknown whether {'it is' if self.num_lost == 1 else 'they are'} among these.")
        return said


def contents_record(digests: Mapping[str, npt.NDArray[np.uint8] | Sequence[bytes]]) -> dict[str, str]:
    """Return the content hashes for splits.json: by split, the first bytes of each file's SHA-256, in base64."""
    known = {
        name: np.ascontiguousarray(part[:, :_NUM_BYTES]).tobytes() if isinstance(part, np.ndarray) else b"".join(part)
        for name, part in digests.items()
    }
    return {name: base64.b64encode(known[name]).decode() for name in SEEN_SPLITS if name in known}


def seen_images(run: RunFolder, paths: Sequence[str]) -> Seen:
    """Return the run's split of each image that it was trained on or validated with, found by the bytes of the files.

    Raises:
        DataError: The run's list of splits is damaged.
        StorageError: A record of the run is damaged.
    """
    record = run.read(run.splits)
    data = DataSet.from_dict(record)
    if "contents" in record:
        known, num_lost, digests = _by_content(stored_contents(record["contents"])), 0, content_digests(paths)
    else:
        known, num_lost, digests = _compared(data, paths)
    return Seen(tuple(known.get(digest, "") if digest else "" for digest in digests), num_lost)


def stored_contents(contents: Any) -> dict[str, list[bytes]]:
    """Return the first bytes of each file's SHA-256 by split, as a splits.json holds them under `contents`.

    Raises:
        DataError: They are damaged.
    """
    known: dict[str, list[bytes]] = {}
    try:
        for split in SEEN_SPLITS:
            data = base64.b64decode(contents.get(split, ""), validate=True)
            known[split] = [data[at : at + _NUM_BYTES] for at in range(0, len(data), _NUM_BYTES)]
    except (AttributeError, TypeError, ValueError, binascii.Error) as error:
        raise DataError(
            f"The run's record of its images' contents cannot be read ({type(error).__name__}: {error}).",
            "splits.json as regraft wrote it",
            "restore it from a copy, or take `contents` out: the images are then compared at their paths",
        ) from error
    return known


def _by_content(contents: Mapping[str, Sequence[bytes]]) -> dict[bytes, str]:
    """Return the split of each content; of one that is in both, training."""
    known: dict[bytes, str] = {}
    for split in reversed(SEEN_SPLITS):
        known |= dict.fromkeys(contents[split], split)
    return known


def _compared(data: DataSet, paths: Sequence[str]) -> tuple[dict[bytes, str], int, list[bytes]]:
    """Read a run without the record: its files are read where they lie, those alone that have a size in common."""
    sizes = [_size(path) for path in paths]
    wanted, own = set(sizes), set[int]()
    known: dict[bytes, str] = {}
    num_lost = 0
    for split in reversed(SEEN_SPLITS):
        files = list(data.splits[split].paths) if split in data.splits else []
        measured = [(path, _size(path)) for path in files]
        num_lost += sum(size < 0 for _, size in measured)
        same = [path for path, size in measured if size > 0 and size in wanted]
        own |= {size for _, size in measured}
        known |= dict.fromkeys(filter(None, content_digests(same)), split)
    rows = [row for row, size in enumerate(sizes) if size in own]
    digests = [b""] * len(paths)
    for row, digest in zip(rows, content_digests([paths[row] for row in rows]), strict=True):
        digests[row] = digest
    return known, num_lost, digests


def content_digests(paths: Sequence[str]) -> list[bytes]:
    """Return the first bytes of each file's SHA-256; empty for one that cannot be read."""
    with thread_pool(num_cpus(), "hash") as pool:
        return list(pool.map(_digest, paths))


def _digest(path: str) -> bytes:
    content = read_file(path)
    return hashlib.sha256(content).digest()[:_NUM_BYTES] if isinstance(content, bytes) else b""


def _size(path: str) -> int:
    try:
        return access.state_of(path).st_size
    except (OSError, ValueError):
        return -1
