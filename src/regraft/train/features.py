"""The frozen-prefix cache: what a frozen part computes for an image that does not change is computed once.

A stage's batches come as features at the end of its frozen part. Training images that are not augmented, and all
validation images, have their features kept; so have a few views of augmented ones, on request. The others go through
the same prefix program every time. Both ways give the same bits, because both run the same program with the same batch
shape and lay its features out alike.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from regraft.data import augment as augmentation
from regraft.data.augment import Augment
from regraft.data.cache import PixelCache
from regraft.data.labels import Labels
from regraft.data.loader import batches
from regraft.data.mix import Mix, mix
from regraft.models.inputs import Normaliser
from regraft.models.numerics import Numerics
from regraft.models.program import InferenceProgram, SplitProgram, prefix_key
from regraft.train.ahead import Wanted
from regraft.train.engine import Engine
from regraft.train.feature_pass import FeaturePass, program_batch_size
from regraft.train.shelf import FeatureKey, Features, FeatureShelf, as_stored

__all__ = ["FeatureCache", "FeatureSource"]

Indices = npt.NDArray[np.int64]
Item = TypeVar("Item")
FeatureCache = str | int  # off, auto, or the number of views
_EVAL_BATCH = 64
_MAP_BATCH = 8  # of images whose every pixel gets a class: their maps are large
_NUM_SHOWN = 8


@dataclass(frozen=True)
class _Rows:
    cache: PixelCache
    labels: Labels

    @property
    def targets(self) -> Labels | PixelCache:
        """What `batches` gives beside the images: their masks where they have any, else their labels."""
        return self.labels if self.cache.masks is None else self.cache.masks

    def at(self, index: Indices) -> Tensor:
        """The labels, or the masks, of some rows."""
        if self.cache.masks is None:
            return torch.from_numpy(self.labels[index])
        masks = np.empty((len(index), *self.cache.masks.program.row_shape), dtype=np.uint8)
        self.cache.masks.fill(index, masks)
        return torch.from_numpy(masks)


class FeatureSource:
    """Batches of one stage, as features at the end of its frozen part (or as images, when nothing is frozen).

    Args:
        model: The whole model.
        program: The model, cut where its frozen part ends.
        pixels: The decoded images of each split; in segmentation with their masks.
        labels: Their labels, by split.
        normaliser: Pixels -> network input.
        numerics: What to compute with.
        augment: How training images vary; None or the identity lets their features be kept, unless they are mixed.
        row_weights: The weight of each training row in the mean loss; None for equal ones.
        mix: How training images are mixed with one another; None for not at all. Their targets become shares.
        repeats: Whether an epoch shows more than one view of a row.
        seed: The run's seed.
        engine: Which processes share the work.
        stage: The stage's number.
        epochs: How often the stage reads a split.
        shelf: Where features are kept, for this stage and for later ones; None for this source alone.
        mode: `off`, `auto`, or the number of views of each augmented image that the epochs go through in turn.
        ahead: What later stages want, asked for once.
        check: Called after each batch of a long pass; may raise to stop.
        say: Called with a line that says what is kept, and where.

    Attributes:
        shown: Of the first training batch that went in, up to 8 images as the network sees them (N, C, H, W).
        shown_masks: Their masks (N, H, W), moved as the images are; None in classification.
        waited: Seconds, since it was last set, in which training waited for pixels: decoding, copying, augmenting.
    """

    def __init__(
        self,
        model: nn.Module,
        program: SplitProgram,
        pixels: Mapping[str, PixelCache],
        labels: Mapping[str, Labels],
        normaliser: Normaliser,
        numerics: Numerics,
        *,
        augment: Augment | None,
        mix: Mix | None = None,
        row_weights: npt.NDArray[np.float64] | None = None,
        repeats: bool = False,
        seed: int,
        engine: Engine,
        stage: int = 0,
        epochs: int = 1,
        shelf: FeatureShelf | None = None,
        mode: FeatureCache = "auto",
        ahead: Callable[[], list[Wanted]] = list,
        check: Callable[[float], None] = lambda units: None,
        say: Callable[[str], None] = lambda line: None,
    ) -> None:
        self.normaliser, self.seed, self.stage, self.epochs, self.mode = normaliser, seed, stage, epochs, mode
        self.augment = None if augment is None or augment.is_identity else augment
        self.mix, self.row_weights, self._repeats = mix, row_weights, repeats
        self.shown: Tensor | None = None
        self.shown_masks: Tensor | None = None
        self.waited = 0.0
        self._model, self._boundary, self._numerics = model, program.boundary, numerics
        self._engine, self._shelf, self._ahead = engine, shelf or FeatureShelf(), ahead
        self._check, self._say = check, say
        self._rows = {name: _Rows(pixels[name], labels[name]) for name in pixels}
        has_masks = any(cache.masks is not None for cache in pixels.values())
        self._eval_batch = _MAP_BATCH if has_masks else _EVAL_BATCH
        self._prefix, self._prefix_key = None, ""
        if program.prefix is not None:
            self._prefix_key = prefix_key(program.prefix) if mode != "off" else ""
            size = min(program_batch_size(numerics), _MAP_BATCH) if has_masks else program_batch_size(numerics)
            self._prefix = InferenceProgram(program.prefix, numerics, size)
        self._wanted: list[Wanted] | None = None
        self._num_views = 0
        self._refused: set[tuple[str, int | None]] = set()

    @property
    def keeps_views(self) -> bool:
        """Whether epochs go through fewer views of each augmented training image than there are epochs."""
        varies = self.augment is not None and self.mix is None and not self._repeats
        return self._prefix is not None and varies and isinstance(self.mode, int) and self.mode < self.epochs

    def view(self, epoch: int) -> int:
        """The number of the view that an epoch of the stage shows: the epoch itself, unless views come again."""
        return epoch % self.mode if self.keeps_views and isinstance(self.mode, int) else epoch

    def notes(self) -> Iterator[str]:
        """What can be said of the training images before any is looked at."""
        if self._prefix is None:
            return
        if self.mode == "off":
            yield "features: every image passes the frozen part in every epoch (feature_cache: off)"
        elif self.keeps_views:
            yield f"features: {self.mode} views of each training image come in turn, each passes the frozen part once"
        elif self.augment is not None and isinstance(self.mode, int):
            yield f"features: {self.mode} views for {self.epochs} epochs: none is shown twice, so none is kept"
        elif self.augment is not None:
            yield "features: training images are augmented and pass the frozen part in every epoch"

    def matrix(self, split: str) -> tuple[Tensor, Tensor]:
        """All features (N, D) and labels of a split, for a stage that trains one linear layer."""
        kept = self._kept(split)
        if kept is None:
            whole = range(-(-len(self._rows[split].cache) // self._eval_batch))
            return torch.cat([features[0] for features, _ in self._evaluation(split, whole)]), self._labels(split)
        return kept.all()[0], self._labels(split)

    def training(
        self, order: Indices, *, epoch: int, batch_size: int, accumulate: int = 1, start_batch: int = 0
    ) -> Iterator[tuple[tuple[Tensor, ...], Tensor, float]]:
        """Features and labels of this process's part of the training batches, in `order`, from `start_batch` on.

        With them comes the factor on their mean loss (see `Engine.shard`).

        Args:
            order: Numbers of samples: rows, or row + n * number of rows for the n-th view of a row.
            epoch: What the augmentation of each sample is a function of, beside seed and sample.
            batch_size: Images in a batch of all processes; the last one has what is left.
            accumulate: Batches in an optimizer step.
            start_batch: The first batch to give.
        """
        rows = self._rows["train"]
        kept = self._kept("train", view=epoch)
        weights = None if self.row_weights is None else self.row_weights[order % len(rows.cache)]
        order, factors = self._engine.shard(order, batch_size, accumulate, weights)
        batch_size = self._engine.share(batch_size)
        if kept is not None:
            self._show_some(rows.cache, np.arange(min(_NUM_SHOWN, len(rows.cache))), epoch)
            for number in range(start_batch, len(factors)):
                index = order[number * batch_size : (number + 1) * batch_size] % len(rows.cache)
                targets = self._moved(rows.at(index).to(self.normaliser.device), index, epoch)
                yield kept.read(torch.from_numpy(index)), targets, factors[number]
            return
        given = batches(
            rows.cache,
            rows.targets,
            order % len(rows.cache),
            batch_size,
            start_batch=start_batch,
            allocate=self.normaliser.allocate,
        )
        for number, (batch, pixels) in enumerate(self._timed(self.normaliser.uploaded(given)), start_batch):
            began = time.perf_counter()
            samples = order[number * batch_size : (number + 1) * batch_size]
            targets = torch.from_numpy(batch.labels).to(self.normaliser.device)
            images, targets = self._augmented(pixels, samples, epoch, targets)
            if self.mix is not None:
                images, targets = mix(images, targets, self.mix, seed=self.seed, epoch=epoch, sample_ids=samples)
            self.waited += time.perf_counter() - began
            yield self._through_prefix(images, targets), targets, factors[number]

    def evaluation(self, split: str) -> Iterator[tuple[tuple[Tensor, ...], Tensor] | None]:
        """Features and labels of a split, in row order, not augmented; of several processes each gets every n-th batch.

        All of them get as many; where there is none left, None.
        """
        num_batches = -(-len(self._rows[split].cache) // self._eval_batch)
        yield from self._evaluation(split, range(self._engine.rank, num_batches, self._engine.num_processes))
        if 0 < num_batches % self._engine.num_processes <= self._engine.rank:
            yield None

    def _evaluation(self, split: str, numbers: range) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
        rows, size = self._rows[split], self._eval_batch
        kept = self._kept(split)
        order = np.arange(len(rows.cache), dtype=np.int64)
        parts = [order[number * size : (number + 1) * size] for number in numbers]
        if kept is not None:
            for part in parts:
                features = kept.read(slice(int(part[0]), int(part[-1]) + 1))
                yield features, rows.at(part).to(self.normaliser.device)
            return
        order = np.concatenate([order[:0], *parts])
        given = batches(rows.cache, rows.targets, order, size, allocate=self.normaliser.allocate)
        for batch, images in self.normaliser.uploaded(given):
            yield self._through_prefix(images), torch.from_numpy(batch.labels).to(self.normaliser.device)

    def _timed(self, items: Iterable[Item]) -> Iterator[Item]:
        iterator = iter(items)
        while True:
            began = time.perf_counter()
            item = next(iterator, None)
            self.waited += time.perf_counter() - began
            if item is None:
                return
            yield item

    def _labels(self, split: str) -> Tensor:
        return torch.from_numpy(self._rows[split].labels).to(self.normaliser.device)

    def _augmented(self, images_NCHW: Tensor, samples: Indices, epoch: int, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The images as their samples vary; masks (N, H, W) move with them, labels stay."""
        if self.augment is None:
            return images_NCHW, targets
        if targets.ndim == 3:
            return augmentation.apply(
                images_NCHW, self.augment, seed=self.seed, epoch=epoch, sample_ids=samples, masks=targets
            )
        images = augmentation.apply(images_NCHW, self.augment, seed=self.seed, epoch=epoch, sample_ids=samples)
        return images, targets

    def _moved(self, targets: Tensor, rows: Indices, view: int) -> Tensor:
        """The targets of images whose features are kept: masks as that view of the images has them."""
        if self.augment is None or targets.ndim < 3:
            return targets
        geometry = replace(self.augment, brightness=0.0, contrast=0.0, saturation=0.0, hue=0.0)
        _, moved = augmentation.apply(
            targets[:, None], geometry, seed=self.seed, epoch=view, sample_ids=rows, masks=targets
        )
        return moved

    def _seen(self, images_NCHW: Tensor, rows: Indices, view: int | None) -> Tensor:
        """Network inputs of a pass whose features are kept."""
        if view is not None and self.augment is not None:
            images_NCHW = augmentation.apply(images_NCHW, self.augment, seed=self.seed, epoch=view, sample_ids=rows)
        return self.normaliser(images_NCHW)

    def _show_some(self, cache: PixelCache, samples: Indices, epoch: int) -> None:
        """Keep a few images as the network sees them, where their features are read and nothing goes in."""
        if self.shown is None and len(samples):
            pixels = np.stack([cache.row(row) for row in (samples % len(cache)).tolist()])
            targets = self._rows["train"].at(samples % len(cache)).to(self.normaliser.device)
            images, targets = self._augmented(self.normaliser.pixels(pixels), samples, epoch, targets)
            self._show(self.normaliser(images), targets)

    def _show(self, images_NCHW: Tensor, targets: Tensor) -> None:
        self.shown = images_NCHW[:_NUM_SHOWN].detach().cpu().clone()
        self.shown_masks = targets[:_NUM_SHOWN].cpu().clone() if targets.ndim == 3 else None

    def _through_prefix(self, images_NCHW: Tensor, shown_with: Tensor | None = None) -> tuple[Tensor, ...]:
        """The features of a batch; a training batch comes with its targets."""
        images_NCHW = self.normaliser(images_NCHW)
        if shown_with is not None and self.shown is None:
            self._show(images_NCHW, shown_with)
        return (images_NCHW,) if self._prefix is None else as_stored(self._prefix(images_NCHW))

    def _kept(self, split: str, *, view: int | None = None) -> Features | None:
        """The features of a split, or of a view of it, computed at the first call; None when they are not kept."""
        varies = split == "train" and (self.augment or self.mix) is not None and view is not None
        if self._prefix is None or self.mode == "off" or (varies and not self.keeps_views):
            return None
        view = view if varies else None
        if (split, view) in self._refused:
            return None
        cache = self._rows[split].cache
        inputs = f"{sorted(cache.program.to_dict().items())} {self._numerics}"
        key = FeatureKey(self._prefix_key, inputs, split, view)
        kept = self._shelf.get(key) or self._compute(key, cache)
        if kept is None:
            self._refused.add((split, view))
        return kept

    def _compute(self, key: FeatureKey, cache: PixelCache) -> Features | None:
        if self._prefix is None:
            return None
        if self._wanted is None:
            self._wanted = self._ahead()
        wanted = [item for item in self._wanted if key.split in item.splits and key.view is None]
        if self.epochs < 2 and not wanted:
            return None
        first = key.view is None or not self._num_views
        left = int(self.mode) - self._num_views if key.view is not None else 1
        self._num_views += key.view is not None
        one_pass = FeaturePass(
            prefix=self._prefix,
            boundary=self._boundary,
            key=key,
            wanted=wanted,
            model=self._model,
            numerics=self._numerics,
            shelf=self._shelf,
            stage=self.stage,
            views=left,
            engine=self._engine,
            check=self._check,
            say=self._say if first else lambda line: None,
        )
        return one_pass.run(
            cache,
            self._rows[key.split].labels,
            self.normaliser,
            lambda images, rows: self._seen(images, rows, key.view),
        )
