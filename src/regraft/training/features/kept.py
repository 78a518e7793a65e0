"""Which features of a stage are kept: those of images that do not change, and of a few views of those that do."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from regraft.training.engine import Engine
from regraft.training.features.feature_pass import FeaturePass, Keeping
from regraft.training.features.feature_store import FeatureKey, Features
from regraft.training.features.frozen_part import FrozenPart
from regraft.training.features.lookahead import Wanted
from regraft.training.features.variation import Variation
from regraft.training.images import Images
from regraft.wording import quantity

__all__ = ["KeptFeatures"]


class KeptFeatures:
    """The features of a stage's splits, computed when they are first asked for, and kept where there is room.

    Args:
        part: The frozen part.
        images: The images of each split.
        engine: Which processes share the work.
        variation: How training images vary.
        keeping: What is kept, where, and for how long.
    """

    def __init__(
        self, part: FrozenPart, images: Images, engine: Engine, variation: Variation, keeping: Keeping
    ) -> None:
        self._part, self._images, self._engine = part, images, engine
        self._variation, self._keeping = variation, keeping
        self._wanted: list[Wanted] | None = None
        self._num_views = 0
        self._refused: set[tuple[str, int | None]] = set()

    @property
    def _views(self) -> int | None:
        """How many views of each augmented image the epochs cycle through; None where each epoch has its own."""
        mode, variation = self._keeping.mode, self._variation
        may_come_again = variation.augment is not None and variation.mix is None and not variation.repeats
        cycles = isinstance(mode, int) and mode < self._keeping.epochs
        return int(mode) if cycles and may_come_again and not self._part.is_empty else None

    def view(self, epoch: int) -> int:
        """Return the number of the view that an epoch of the stage shows: the epoch itself, unless views come again."""
        return epoch if self._views is None else epoch % self._views

    def notes(self) -> Iterator[str]:
        """Yield what can be said of the training images before any is looked at."""
        mode, augments = self._keeping.mode, self._variation.augment is not None
        if self._part.is_empty:
            return
        if mode == "off":
            yield "feature cache off: set so by feature_cache"
        elif self._views is not None:
            yield f"feature cache: cycling through {quantity(mode, 'view')} of each training image"
        elif augments and isinstance(mode, int):
            yield (
                f"feature cache off: {quantity(mode, 'view')} for {quantity(self._keeping.epochs, 'epoch')}, so none "
                "repeats"
            )
        elif augments:
            yield "feature cache off: augmentation is on"

    def of(self, split: str, *, view: int | None = None) -> Features | None:
        """Return the features of a split, or of a view of it, computed at the first call; None when they are not
        kept.
        """
        varies = split == "train" and view is not None and not self._variation.is_none
        if self._part.is_empty or self._keeping.mode == "off" or (varies and self._views is None):
            return None
        view = view if varies else None
        if (split, view) in self._refused:
            return None
        inputs = f"{sorted(self._images.pixels[split].program.to_dict().items())} {self._part.numerics_of(split)}"
        key = FeatureKey(self._part.key, inputs, split, view)
        kept = self._keeping.store.get(key) or self._compute(key)
        if kept is None:
            self._refused.add((split, view))
        return kept

    def _compute(self, key: FeatureKey) -> Features | None:
        keeping = self._keeping
        if self._wanted is None:
            self._wanted = keeping.look_ahead()
        wanted = [item for item in self._wanted if key.split in item.splits and key.view is None]
        if keeping.epochs < 2 and not wanted:
            return None
        views_left = 1
        if key.view is not None:
            views_left = (self._views or 1) - self._num_views
            keeping = keeping if not self._num_views else replace(keeping, say=lambda line: None)
            self._num_views += 1
        one_pass = FeaturePass(self._part, key, wanted, views_left, keeping, self._engine)
        return one_pass.run(self._images, lambda images, rows: self._variation.view(images, rows, key.view))
