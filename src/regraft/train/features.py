"""The frozen-prefix cache: what a frozen part computes for an image that does not change is computed once.

A stage's batches come as features at the end of its frozen part. Training images that are not augmented, and all
validation images, have their features stored; augmented ones go through the same prefix program every time. Both ways
give the same bits, because both run the same program with the same batch shape.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from regraft.data import augment as augmentation
from regraft.data.augment import Augment
from regraft.data.budget import memory_budget
from regraft.data.cache import PixelCache
from regraft.data.labels import Labels
from regraft.data.loader import Batch, batches
from regraft.data.mix import Mix, mix
from regraft.models.inputs import Normaliser
from regraft.models.numerics import Numerics
from regraft.models.program import InferenceProgram, SplitProgram
from regraft.train.engine import Engine

__all__ = ["FeatureSource", "program_batch_size"]

Indices = npt.NDArray[np.int64]
Item = TypeVar("Item")
_EVAL_BATCH = 64
_NUM_SHOWN = 8


def program_batch_size(numerics: Numerics) -> int:
    """Images that the prefix program takes at a time.

    On a CPU small batches keep activations in the cache: EfficientNet-lite0 at 224 px, folded bf16 on 2 cores, gives
    190 images/s at 8 to 16 and 121 to 159 at 64.
    """
    return 16 if torch.device(numerics.device).type == "cpu" else 128


@dataclass(frozen=True)
class _Rows:
    cache: PixelCache
    labels: Tensor


class FeatureSource:
    """Batches of one stage, as features at the end of its frozen part (or as images, when nothing is frozen).

    Args:
        program: The model, cut where its frozen part ends.
        pixels: The decoded images of each split.
        labels: Their labels, by split.
        normaliser: Pixels -> network input.
        numerics: What to compute with.
        augment: How training images vary; None or the identity lets their features be stored, unless they are mixed.
        row_weights: The weight of each training row in the mean loss; None for equal ones.
        mix: How training images are mixed with one another; None for not at all. Their targets become shares.
        seed: The run's seed.
        check: Called after each batch of a long pass; may raise to stop.
        engine: Which processes share the work.

    Attributes:
        shown: Of the first training batch that went in, up to 8 images as the network sees them (N, C, H, W).
        waited: Seconds, since it was last set, in which training waited for pixels: decoding, copying, augmenting.
    """

    def __init__(
        self,
        program: SplitProgram,
        pixels: Mapping[str, PixelCache],
        labels: Mapping[str, Labels],
        normaliser: Normaliser,
        numerics: Numerics,
        *,
        augment: Augment | None,
        mix: Mix | None = None,
        row_weights: npt.NDArray[np.float64] | None = None,
        seed: int,
        check: Callable[[float], None] = lambda units: None,
        engine: Engine,
    ) -> None:
        self.normaliser = normaliser
        self.augment = None if augment is None or augment.is_identity else augment
        self.mix = mix
        self.row_weights = row_weights
        self.seed = seed
        self.shown: Tensor | None = None
        self.waited = 0.0
        self._check = check
        self._engine = engine
        self._rows = {name: _Rows(pixels[name], torch.from_numpy(labels[name])) for name in pixels}
        self._prefix = None
        if program.prefix is not None:
            self._prefix = InferenceProgram(program.prefix, numerics, program_batch_size(numerics))
        self._stored: dict[str, tuple[Tensor, ...] | None] = {}

    @property
    def stores_training(self) -> bool:
        """Whether the features of training images are stored."""
        return self._features("train") is not None

    def matrix(self, split: str) -> tuple[Tensor, Tensor]:
        """All features (N, D) and labels of a split, for a stage that trains one linear layer."""
        stored = self._features(split)
        if stored is None:
            whole = range(-(-len(self._rows[split].cache) // _EVAL_BATCH))
            return torch.cat([features[0] for features, _ in self._evaluation(split, whole)]), self._labels(split)
        return stored[0], self._labels(split)

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
        stored = self._features("train")
        weights = None if self.row_weights is None else self.row_weights[order % len(rows.cache)]
        order, factors = self._engine.shard(order, batch_size, accumulate, weights)
        batch_size = self._engine.share(batch_size)
        if stored is not None:
            for number in range(start_batch, len(factors)):
                index = torch.from_numpy(order[number * batch_size : (number + 1) * batch_size] % len(rows.cache))
                yield tuple(part[index] for part in stored), self._labels("train")[index], factors[number]
            return
        indices = order % len(rows.cache)
        given = self._timed(batches(rows.cache, rows.labels.numpy(), indices, batch_size, start_batch=start_batch))
        for number, batch in enumerate(given, start_batch):
            began = time.perf_counter()
            samples = order[number * batch_size : (number + 1) * batch_size]
            images, targets = self._varied(batch, samples, epoch)
            self.waited += time.perf_counter() - began
            yield self._through_prefix(images, training=True), targets, factors[number]

    def _varied(self, batch: Batch, samples: Indices, epoch: int) -> tuple[Tensor, Tensor]:
        """The batch's images, augmented and mixed, and their targets, on the device."""
        images, targets = self.normaliser.pixels(batch.images), torch.from_numpy(batch.labels)
        targets = targets.to(self.normaliser.device)
        if self.augment is not None:
            images = augmentation.apply(images, self.augment, seed=self.seed, epoch=epoch, sample_ids=samples)
        if self.mix is not None:
            images, targets = mix(images, targets, self.mix, seed=self.seed, epoch=epoch, sample_ids=samples)
        return images, targets

    def evaluation(self, split: str) -> Iterator[tuple[tuple[Tensor, ...], Tensor] | None]:
        """Features and labels of a split, in row order, not augmented; of several processes each gets every n-th batch.

        All of them get as many; where there is none left, None.
        """
        num_batches = -(-len(self._rows[split].cache) // _EVAL_BATCH)
        yield from self._evaluation(split, range(self._engine.rank, num_batches, self._engine.num_processes))
        if 0 < num_batches % self._engine.num_processes <= self._engine.rank:
            yield None

    def _evaluation(self, split: str, numbers: range) -> Iterator[tuple[tuple[Tensor, ...], Tensor]]:
        rows = self._rows[split]
        stored = self._features(split)
        if stored is not None:
            labels = self._labels(split)
            for start in (number * _EVAL_BATCH for number in numbers):
                yield tuple(part[start : start + _EVAL_BATCH] for part in stored), labels[start : start + _EVAL_BATCH]
            return
        order = np.arange(len(rows.cache), dtype=np.int64)
        parts = [order[number * _EVAL_BATCH : (number + 1) * _EVAL_BATCH] for number in numbers]
        for batch in batches(rows.cache, rows.labels.numpy(), np.concatenate([order[:0], *parts]), _EVAL_BATCH):
            features = self._through_prefix(self.normaliser.pixels(batch.images))
            yield features, torch.from_numpy(batch.labels).to(self.normaliser.device)

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
        return self._rows[split].labels.to(self.normaliser.device)

    def _through_prefix(self, images_NCHW: Tensor, *, training: bool = False) -> tuple[Tensor, ...]:
        images_NCHW = self.normaliser(images_NCHW)
        if training and self.shown is None:
            self.shown = images_NCHW[:_NUM_SHOWN].detach().cpu().clone()
        return (images_NCHW,) if self._prefix is None else self._prefix(images_NCHW)

    def _features(self, split: str) -> tuple[Tensor, ...] | None:
        """The stored features of a split; computed at the first call; None when they vary or do not fit."""
        if self._prefix is None or (split == "train" and (self.augment or self.mix) is not None):
            return None
        if split not in self._stored:
            self._stored[split] = self._compute(split)
        return self._stored[split]

    def _compute(self, split: str) -> tuple[Tensor, ...] | None:
        cache = self._rows[split].cache
        size = program_batch_size(self._prefix.numerics) if self._prefix is not None else 1
        bounds = _bounds(len(cache), size, self._engine.num_processes)
        start, end = bounds[self._engine.rank]
        order = np.arange(start, end, dtype=np.int64) if end > start else np.arange(min(size, len(cache)))
        stored: tuple[Tensor, ...] | None = None
        for batch in batches(cache, self._rows[split].labels.numpy(), order, size):
            parts = self._through_prefix(self.normaliser.pixels(batch.images), training=split == "train")
            if stored is None:
                if self._engine.any(not _fits(parts, len(cache))):
                    return None
                stored = tuple(part.new_empty((len(cache), *part.shape[1:])) for part in parts)
            for target, part in zip(stored, parts, strict=True):
                target[batch.indices[0] : batch.indices[0] + len(part)] = part
            self._check(float(len(batch.indices)) * self._engine.num_processes)
        self._engine.exchange(stored or (), bounds)
        return stored


def _bounds(num_rows: int, batch_size: int, num_processes: int) -> list[tuple[int, int]]:
    """The rows [start, end) that each process computes: whole batches, as evenly as they go."""
    num_batches = -(-num_rows // batch_size)
    cuts = [part * num_batches // num_processes * batch_size for part in range(num_processes + 1)]
    return [(start, min(end, num_rows)) for start, end in pairwise(cuts)]


def _fits(parts: Sequence[Tensor], num_rows: int) -> bool:
    per_row = sum(part[0].numel() * part.element_size() for part in parts)
    device = parts[0].device
    free = torch.cuda.mem_get_info(device)[0] // 2 if device.type == "cuda" else memory_budget()
    return bool(per_row * num_rows <= free)
