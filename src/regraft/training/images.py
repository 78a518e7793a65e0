"""The decoded images of a run, with what they are to be recognised as."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from regraft.data.cache.cache import PixelCache
from regraft.data.labels import Labels
from regraft.models.describe.inputs import Normaliser

__all__ = ["Images"]


@dataclass(frozen=True)
class Images:
    """The decoded images of a run by split, and how they become the network's input.

    Attributes:
        pixels: The images by split; in segmentation with their masks.
        labels: Their labels by split.
        class_names: The names of the labels.
        normaliser: Pixels -> network input.
        palette: In segmentation: red, green, blue of each value of a mask, uint8 (256, 3).
        groups: The number of each training image's group, which no inner division separates; None where there are none.
    """

    pixels: Mapping[str, PixelCache]
    labels: Mapping[str, Labels]
    class_names: Sequence[str]
    normaliser: Normaliser
    palette: npt.NDArray[np.uint8] | None = None
    groups: npt.NDArray[np.int64] | None = None

    @property
    def has_masks(self) -> bool:
        """Whether every pixel has a class."""
        return any(cache.masks is not None for cache in self.pixels.values())

    def sized(self, size: tuple[int, int] | None, train: tuple[int, int] | None = None) -> Images:
        """Return the same images at another (height, width); None is as they are decoded for the run.

        Args:
            size: Of all of them.
            train: Of those that are trained on; None takes `size`.
        """
        sizes = {"train": train or size}
        caches = {name: cache.sized(sizes.get(name, size) or cache.program.size) for name, cache in self.pixels.items()}
        return replace(self, pixels=caches)

    def targets(self, split: str) -> Labels | PixelCache:
        """Return the targets of a split: masks where it has any, else labels."""
        masks = self.pixels[split].masks
        return self.labels[split] if masks is None else masks

    def targets_at(self, split: str, rows: npt.NDArray[np.int64]) -> Tensor:
        """Return the labels (N,) or the masks (N, H, W) of some rows, on the device."""
        masks = self.pixels[split].masks
        if masks is None:
            return torch.from_numpy(self.labels[split][rows]).to(self.normaliser.device)
        values = np.empty((len(rows), *masks.program.row_shape), dtype=np.uint8)
        masks.fill(rows, values)
        return torch.from_numpy(values).to(self.normaliser.device)
