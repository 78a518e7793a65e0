"""The images that backbones are compared on: all but a test split, or a stratified part of them, decoded once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from regraft.data.cache.cache import CacheMode, PixelCache
from regraft.data.dataset import DataSet, Split
from regraft.data.decode.decode import PixelProgram
from regraft.data.decode_all import decode_all
from regraft.data.paths import Paths
from regraft.data.split import divide
from regraft.errors import DataError, SettingsError

__all__ = ["Sample", "pooled"]

Rows = npt.NDArray[np.int64]
_NUM_HELD = 2  # sets of pixels that are kept at a time; others come from the disk's cache, or are decoded again


def pooled(data: DataSet) -> Split:
    """Return all images but those of a test split, which nothing is chosen by.

    Raises:
        SettingsError: They have masks, or any number of labels.
        DataError: There is only one class, or too few images.
    """
    if data.segmentation or data.multilabel:
        kind = "masks" if data.segmentation else "any number of labels each"
        raise SettingsError(
            f"The images of {data.source or data.name!r} have {kind}, and backbones are compared on one class each.",
            "images with one class each",
            "name the network yourself (`--model`)",
        )
    parts = [split for name, split in data.splits.items() if name != "test"]
    labels = np.concatenate([part.labels for part in parts])
    counts = np.bincount(labels, minlength=1)
    if int((counts > 1).sum()) < 2:
        raise DataError(
            f"The images of {data.source or data.name!r} are too few to compare backbones on.",
            "at least two classes with at least two images each, without the test split",
            "add images to the classes",
        )
    groups = [part.groups for part in parts if part.groups is not None]
    paths = Paths.joined(Paths.of(part.paths) for part in parts)
    return Split(paths, labels, groups=np.concatenate(groups) if groups else None)


class Sample:
    """A stratified part of some images, and their pixels for each network that wants them.

    Args:
        data: The data set that the images are of.
        images: The images.
        num: How many of them to take, about; at least one of each class.
        seed: Which ones.
        cache: Where decoded pixels are kept.
        say: Called with a line that says where they are.
    """

    def __init__(
        self, data: DataSet, images: Split, num: int, seed: int, cache: CacheMode, say: Callable[[str], None]
    ) -> None:
        share = min(1.0, num / len(images))
        rows = np.arange(len(images)) if share == 1 else divide(images.labels, (share, 1 - share), seed=seed)[0]
        self.images = images.take(rows)
        self._data, self._cache, self._say = data, cache, say
        self._held: dict[str, tuple[PixelCache, Rows]] = {}

    def __len__(self) -> int:
        return len(self.images)

    def pixels(self, program: PixelProgram) -> tuple[PixelCache, Rows]:
        """Return the decoded images, and which rows of `images` they are: those that can be read.

        Raises:
            DataError: A class has no readable image.
        """
        key = str(sorted(program.to_dict().items()))
        if key not in self._held:
            if len(self._held) == _NUM_HELD:
                del self._held[next(iter(self._held))]
            data = replace(self._data, splits={"train": self.images}, quarantined=())
            _, caches = decode_all(data, program, cache=self._cache, say=self._say)
            self._held[key] = caches["train"], caches["train"].good
        return self._held[key]
