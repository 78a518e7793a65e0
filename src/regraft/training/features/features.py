"""The batches of a stage, as features at the end of its frozen part.

Training images that are not augmented, and all validation images, have their features kept; so have a few views of
augmented ones, on request. The others go through the same prefix program every time. Both ways give the same bits,
because both run the same program with the same batch shape and lay its features out alike.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from regraft.compute.program import SplitProgram
from regraft.data.cache.loader import batch_bounds, batches
from regraft.training.engine import Engine
from regraft.training.features.feature_pass import Keeping
from regraft.training.features.feature_store import Features
from regraft.training.features.frozen_part import FrozenPart, evaluation_batch
from regraft.training.features.kept import KeptFeatures
from regraft.training.features.variation import Variation
from regraft.training.images import Images

__all__ = ["FeatureSource"]

Indices = npt.NDArray[np.int64]
Item = TypeVar("Item")
_NUM_SHOWN = 8


class FeatureSource:
    """Batches of one stage, as features at the end of its frozen part (or as images, when nothing is frozen).

    Args:
        model: The whole model.
        program: The model, cut where its frozen part ends.
        images: The images of each split.
        engine: What computes, and which processes share the work.
        variation: How training images vary.
        keeping: What of the features is kept, where, and for how long.

    Attributes:
        kept: The features that are kept.
        shown: Of the first training batch that went in, up to 8 images as the network sees them (N, C, H, W).
        shown_masks: Their masks (N, H, W), moved as the images are; None in classification.
        waited: Seconds, since it was last set, in which training waited for pixels: decoding, copying, augmenting.
    """

    def __init__(
        self,
        model: nn.Module,
        program: SplitProgram,
        images: Images,
        engine: Engine,
        variation: Variation,
        keeping: Keeping,
    ) -> None:
        self.images, self.variation, self._engine = images, variation, engine
        self.part = FrozenPart(model, program, engine.numerics, has_masks=images.has_masks)
        self.kept = KeptFeatures(self.part, images, engine, variation, keeping)
        self.shown: Tensor | None = None
        self.shown_masks: Tensor | None = None
        self.waited = 0.0
        self._eval_batch = evaluation_batch(has_masks=images.has_masks)

    def matrix(self, split: str) -> tuple[Tensor, Tensor]:
        """Return all features (N, D) and labels of a split, for a stage that trains one linear layer."""
        kept, num_rows = self.kept.of(split), len(self.images.pixels[split])
        if split == "train":
            self._show_some(np.linspace(0, num_rows - 1, min(_NUM_SHOWN, num_rows)).astype(np.int64), epoch=0)
        labels = torch.from_numpy(self.images.labels[split]).to(self.images.normaliser.device)
        if kept is None:
            whole = range(-(-num_rows // self._eval_batch))
            return torch.cat([features[0] for features, _ in self._evaluation(split, whole)]), labels
        return kept.all()[0], labels

    def training(
        self, order: Indices, bounds: Indices, *, epoch: int, accumulate: int = 1, start_batch: int = 0
    ) -> Iterator[tuple[tuple[Tensor, ...], Tensor, float]]:
        """Return features and labels of this process's part of the training batches, in `order`, from `start_batch` on.

        With them comes the factor on their mean loss (see `Engine.shard`).

        Args:
            order: Numbers of samples: rows, or row + n * number of rows for the n-th view of a row.
            bounds: Where the batches of all processes begin, and where the last one ends (`batch_bounds`).
            epoch: What the augmentation of each sample is a function of, beside seed and sample.
            accumulate: Batches in an optimizer step.
            start_batch: The first batch to give.
        """
        num_rows, row_weights = len(self.images.pixels["train"]), self.variation.row_weights
        kept = self.kept.of("train", view=epoch)
        weights = None if row_weights is None else row_weights[order % num_rows]
        order, bounds, factors = self._engine.shard(order, bounds, accumulate, weights)
        passed = self._passed(order, bounds, start_batch, epoch)
        given = passed if kept is None else self._stored(kept, _parts(order % num_rows, bounds)[start_batch:], epoch)
        for (features, targets), factor in zip(given, factors[start_batch:], strict=True):
            yield features, targets, factor

    def _stored(
        self, kept: Features, parts: Iterable[Indices], epoch: int
    ) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
        """Return batches whose features are kept."""
        num_rows = len(self.images.pixels["train"])
        self._show_some(np.arange(min(_NUM_SHOWN, num_rows)), epoch)
        for rows in parts:
            targets = self.variation.targets_of_view(self.images.targets_at("train", rows), rows, epoch)
            yield kept.read(torch.from_numpy(rows)), targets

    def _passed(
        self, order: Indices, bounds: Indices, first: int, epoch: int
    ) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
        """Return batches that pass through the frozen part, from the `first` one on."""
        cache, normaliser = self.images.pixels["train"], self.images.normaliser
        masks_or_labels, rows = self.images.targets("train"), order % len(cache)
        given = batches(cache, masks_or_labels, rows, bounds, start_batch=first, allocate=normaliser.allocate)
        timed = self._timed(normaliser.uploaded(given))
        for samples, (batch, pixels) in zip(_parts(order, bounds)[first:], timed, strict=True):
            began = time.perf_counter()
            targets = torch.from_numpy(batch.labels).to(normaliser.device)
            varied, targets = self.variation.applied(pixels, samples, epoch, targets)
            self.waited += time.perf_counter() - began
            inputs = normaliser(varied)
            if self.shown is None:
                self._show(inputs, targets)
            yield self.part("train", inputs), targets

    def evaluation(self, split: str) -> Iterator[tuple[tuple[Tensor, ...], Tensor] | None]:
        """Return features and labels of a split, in row order, not augmented; of several processes each gets every n-th
        batch.

        All of them get as many; where there is none left, None.
        """
        num_batches = -(-len(self.images.pixels[split]) // self._eval_batch)
        yield from self._evaluation(split, range(self._engine.rank, num_batches, self._engine.num_processes))
        if 0 < num_batches % self._engine.num_processes <= self._engine.rank:
            yield None

    def _evaluation(self, split: str, numbers: range) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
        images, normaliser, size = self.images, self.images.normaliser, self._eval_batch
        kept, cache = self.kept.of(split), images.pixels[split]
        order = np.arange(len(cache), dtype=np.int64)
        parts = [order[number * size : (number + 1) * size] for number in numbers]
        if kept is not None:
            for part in parts:
                yield kept.read(slice(int(part[0]), int(part[-1]) + 1)), images.targets_at(split, part)
            return
        order = np.concatenate([order[:0], *parts])
        bounds = batch_bounds(len(order), size)
        given = batches(cache, images.targets(split), order, bounds, allocate=normaliser.allocate)
        for batch, pixels in normaliser.uploaded(given):
            yield self.part(split, normaliser(pixels)), torch.from_numpy(batch.labels).to(normaliser.device)

    def _timed(self, items: Iterable[Item]) -> Iterator[Item]:
        iterator = iter(items)
        while True:
            began = time.perf_counter()
            item = next(iterator, None)
            self.waited += time.perf_counter() - began
            if item is None:
                return
            yield item

    def _show_some(self, samples: Indices, epoch: int) -> None:
        """Keep a few images as the network sees them, where their features are read and nothing goes in."""
        if self.shown is None and len(samples):
            cache, normaliser = self.images.pixels["train"], self.images.normaliser
            pixels = np.stack([cache.row(row) for row in samples.tolist()])
            targets = self.images.targets_at("train", samples)
            varied, targets = self.variation.augmented(normaliser.pixels(pixels), samples, epoch, targets)
            self._show(normaliser(varied), targets)

    def _show(self, inputs_NCHW: Tensor, targets: Tensor) -> None:
        self.shown = inputs_NCHW[:_NUM_SHOWN].detach().cpu().clone()
        self.shown_masks = targets[:_NUM_SHOWN].cpu().clone() if targets.ndim == 3 else None


def _parts(order: Indices, bounds: Indices) -> list[Indices]:
    """Return the samples of each batch."""
    return [order[start:end] for start, end in pairwise(bounds.tolist())]
