"""How the training images of a stage vary: augmentation and mixing, as functions of seed, epoch and sample."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from torch import Tensor

from regraft.data.augment import augment as augmentation
from regraft.data.augment.mix import Mix, mix
from regraft.settings.augment import Augment
from regraft.settings.stage import Stage

__all__ = ["Variation"]

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Variation:
    """How the training images of a stage vary.

    Attributes:
        seed: The run's.
        augment: How each image varies by itself; None where it does not.
        mix: How images are mixed with one another; None for not at all. Their targets become shares.
        repeats: Whether an epoch shows more than one view of a row.
        row_weights: The weight of each training row in the mean loss; None for equal ones.
    """

    seed: int
    augment: Augment | None = None
    mix: Mix | None = None
    repeats: bool = False
    row_weights: npt.NDArray[np.float64] | None = None

    @classmethod
    def of(
        cls, stage: Stage, seed: int, num_classes: int, row_weights: npt.NDArray[np.float64] | None = None
    ) -> Variation:
        """Return the variation of training images by a stage's settings: augmentation, mixing and sampling."""
        augment = None if stage.augment is None or stage.augment.is_identity else stage.augment
        mixes = Mix(stage.mixup, stage.cutmix, num_classes) if stage.mixes else None
        return cls(seed, augment, mixes, stage.sampling == "balanced", row_weights)

    @property
    def is_none(self) -> bool:
        """Whether an image is the same in every epoch."""
        return self.augment is None and self.mix is None

    def applied(self, images_NCHW: Tensor, samples: Indices, epoch: int, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return images (N, C, H, W) and their targets as an epoch shows them."""
        images, targets = self.augmented(images_NCHW, samples, epoch, targets)
        if self.mix is None:
            return images, targets
        return mix(images, targets, self.mix, seed=self.seed, epoch=epoch, sample_ids=samples)

    def augmented(self, images_NCHW: Tensor, samples: Indices, epoch: int, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return the images augmented but not mixed; masks (N, H, W) move with their images, labels stay."""
        if self.augment is None:
            return images_NCHW, targets
        if targets.ndim == 3:
            return augmentation.apply(
                images_NCHW, self.augment, seed=self.seed, epoch=epoch, sample_ids=samples, masks=targets
            )
        return augmentation.apply(images_NCHW, self.augment, seed=self.seed, epoch=epoch, sample_ids=samples), targets

    def view(self, images_NCHW: Tensor, rows: Indices, view: int | None) -> Tensor:
        """Return the images alone, in one of their views; None is as they are."""
        if view is None or self.augment is None:
            return images_NCHW
        return augmentation.apply(images_NCHW, self.augment, seed=self.seed, epoch=view, sample_ids=rows)

    def targets_of_view(self, targets: Tensor, rows: Indices, view: int) -> Tensor:
        """Return the targets of images whose features are kept: masks as that view of the images has them."""
        if self.augment is None or targets.ndim < 3:
            return targets
        geometry = replace(self.augment, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0)
        _, moved = augmentation.apply(
            targets[:, None], geometry, seed=self.seed, epoch=view, sample_ids=rows, masks=targets
        )
        return moved
