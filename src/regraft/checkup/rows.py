"""All images of a data set as one table, whichever split they are in."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from regraft.checkup.issue import Item
from regraft.data.dataset import DataSet
from regraft.data.labels import label_names

__all__ = ["Rows"]

Places = npt.NDArray[np.int64]


class Rows:
    """The images of all splits, one after the other.

    Args:
        data: The data set.

    Attributes:
        data: The data set.
        paths: Of each image, absolute.
        split_of: The split of each image, as a position in `splits`.
        splits: Their names.
        labels: Of each image: a class number, or zeros and ones for the classes that it has.
    """

    def __init__(self, data: DataSet) -> None:
        self.data = data
        self.splits = tuple(data.splits)
        self.paths: list[str] = [path for split in data.splits.values() for path in split.paths]
        self.split_of: Places = np.repeat(np.arange(len(self.splits)), [len(split) for split in data.splits.values()])
        self.labels = np.concatenate([split.labels for split in data.splits.values()])
        self._names = [] if data.segmentation else label_names(self.labels, data.class_names)

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def has_classes(self) -> bool:
        """Whether each image has exactly one class."""
        return not self.data.segmentation and not self.data.multilabel

    def shown_path(self, row: int) -> str:
        """Return the path of an image as it is seen from the root of the data set."""
        path, root = self.paths[row], self.data.root.rstrip(os.sep) + os.sep
        return path.removeprefix(root)

    def label(self, row: int) -> str:
        """Return the names of an image's classes, as text; empty for images with masks."""
        name = self._names[row] if self._names else ""
        return name if isinstance(name, str) else ", ".join(name)

    def item(self, row: int, detail: str = "", **more: int | float | str | None) -> Item:
        """Return an image as an item of an issue."""
        split = self.splits[int(self.split_of[row])]
        return Item(self.shown_path(row), split, self.label(row), detail, **more)  # type: ignore[arg-type]

    def items(self, rows: Iterable[int], details: Sequence[str] | None = None) -> tuple[Item, ...]:
        """Return images as items, each with its detail."""
        return tuple(self.item(row, details[at] if details else "") for at, row in enumerate(rows))
