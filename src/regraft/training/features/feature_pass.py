"""One pass of a split through the frozen part, whose features are kept for this stage and, on the way, later ones."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from regraft.compute.program import InferenceProgram, joint_prefix
from regraft.data.cache.loader import batch_bounds, batches
from regraft.errors import StorageError
from regraft.training.engine import Engine
from regraft.training.features.feature_store import FeatureKey, Features, FeatureStore, Tier, choose_tier, num_bytes_of
from regraft.training.features.frozen_part import FrozenPart
from regraft.training.features.lookahead import Wanted
from regraft.training.images import Images

__all__ = ["FeatureCache", "FeaturePass", "Keeping"]

Indices = npt.NDArray[np.int64]
Parts = tuple[Tensor, ...]
FeatureCache = str | int  # off, auto, or the number of views
_DISK_RATE = 3e8  # bytes a second that a disk is sure to give back
_WHERE = {"device": "on the device", "memory": "in memory", "disk": "on the disk"}


@dataclass(frozen=True)
class Keeping:
    """What of a stage's features is kept, where, and for how long.

    Attributes:
        mode: `off`, `auto`, or the number of views of each augmented image that the epochs cycle through.
        store: Where features are kept, for this stage and for later ones.
        stage: The stage's number.
        epochs: How often the stage reads a split.
        look_ahead: What later stages want, asked for once.
        check: Called after each batch of a pass, with the number of its images; may raise to stop.
        say: Called with a line that says what is kept, and where.
    """

    mode: FeatureCache = "auto"
    store: FeatureStore = field(default_factory=FeatureStore)
    stage: int = 0
    epochs: int = 1
    look_ahead: Callable[[], list[Wanted]] = list
    check: Callable[[float], None] = lambda num_images: None
    say: Callable[[str], None] = lambda line: None


@dataclass
class FeaturePass:
    """A pass of one split (or one view of it) through a frozen part.

    Attributes:
        part: The frozen part.
        key: Under which its features are kept.
        wanted: What later stages read of the same images.
        views: How many such passes are still to come, with this one: all of them need room.
        keeping: Where the features are kept.
        engine: Which processes share the work.
    """

    part: FrozenPart
    key: FeatureKey
    wanted: Sequence[Wanted]
    views: int
    keeping: Keeping
    engine: Engine
    _compute: Callable[[Tensor], list[Parts]] = field(init=False)
    _later: list[Wanted] = field(init=False)

    def run(self, images: Images, vary: Callable[[Tensor, Indices], Tensor]) -> Features | None:
        """Return the features of all rows; None when they are not worth keeping, or do not fit anywhere.

        Args:
            images: The images of each split.
            vary: Images (N, C, H, W) and their rows -> the images as this view shows them.
        """
        program = self.part.program(self.key.split)
        if program is None:
            return None
        cache, normaliser, size = images.pixels[self.key.split], images.normaliser, self.part.batch_size
        bounds = _bounds(len(cache), size, self.engine.num_processes)
        start, end = bounds[self.engine.rank]
        order = np.arange(start, end, dtype=np.int64) if end > start else np.arange(min(size, len(cache)))
        rooms: list[Features] = []
        labels = images.labels[self.key.split]
        given = batches(cache, labels, order, batch_bounds(len(order), size), allocate=normaliser.allocate)
        for batch, pixels in normaliser.uploaded(given):
            inputs = normaliser(vary(pixels, batch.indices))
            if not rooms:
                self._choose_program(program, inputs)
            outputs = self._compute(inputs)
            rooms = rooms or self._rooms(program, outputs, inputs, len(cache))
            if not rooms:
                return None
            for room, parts in zip(rooms, outputs, strict=False):
                room.write(int(batch.indices[0]), parts)
            self.keeping.check(float(len(batch.indices)) * self.engine.num_processes)
        for room in rooms:
            self.engine.exchange(room.parts, bounds)
        self._put(rooms)
        return rooms[0] if rooms else None

    def _choose_program(self, program: InferenceProgram, inputs: Tensor) -> None:
        """Compute the features of later stages in the same pass, where that is bit-exact with their own programs."""
        self._later = [
            item
            for item in self.wanted
            if item.key != self.key.prefix and self.keeping.store.get(self.key._replace(prefix=item.key)) is None
        ]
        self._compute = lambda images: [program(images)]
        made = (
            joint_prefix(self.part.model, [self.part.boundary, *(item.boundary for item in self._later)])
            if self._later
            else None
        )
        if made is None:
            self._later = []
            return
        size, numerics = program.batch_size, program.numerics
        joint, places = InferenceProgram(made[0], numerics, size), made[1]
        alone = [
            program,
            *(InferenceProgram(copy.deepcopy(item.prefix), numerics, size) for item in self._later),
        ]
        pairs = zip(_picked(joint(inputs), places), (one(inputs) for one in alone), strict=True)
        if self.engine.any(any(not _same(one, other) for one, other in pairs)):
            self._later = []
        else:
            self._compute = lambda images: _picked(joint(images), places)

    def _rooms(
        self, program: InferenceProgram, outputs: Sequence[Parts], inputs: Tensor, num_rows: int
    ) -> list[Features]:
        """Return room for the features of this stage, and of later ones as far as there is some; or none at all."""
        num_bytes = num_bytes_of(outputs[0], num_rows)
        tier = choose_tier(num_bytes * self.views, outputs[0][0].device)
        slow = tier == "disk" and not _is_worth_the_disk(program, inputs, num_bytes / num_rows)
        room = None if tier is None or slow else _room(num_rows, outputs[0], tier)
        if self.engine.any(room is None):
            size = f"{num_bytes * self.views / 1e6:,.0f} MB"
            reason = f"{size} would come no faster from the disk" if slow else f"there is no room for {size}"
            self.keeping.say(f"feature cache off for {self.key.split} images: {reason}")
            return []
        rooms, later = [room] if room is not None else [], []
        for item, parts in zip(self._later, outputs[1:], strict=True):
            num_bytes += num_bytes_of(parts, num_rows)
            fits = tier != "disk" and choose_tier(num_bytes, parts[0].device) == tier
            if tier is None or self.engine.any(not fits):
                break
            rooms.append(Features(num_rows, parts, tier))
            later.append(item)
        self._later = later
        return rooms

    def _put(self, rooms: Sequence[Features]) -> None:
        if not rooms:
            return
        until = max([self.keeping.stage, *(item.stage for item in self.wanted if item.key == self.key.prefix)])
        self.keeping.store.put(self.key, rooms[0], until=until)
        for item, room in zip(self._later, rooms[1:], strict=True):
            self.keeping.store.put(self.key._replace(prefix=item.key), room, until=item.stage)
        self.keeping.say(self._account(rooms))

    def _account(self, rooms: Sequence[Features]) -> str:
        size = self.views * rooms[0].num_bytes / 1e6
        text = f"cached backbone features: {rooms[0].num_rows:,} {self.key.split} images"
        text += f", {size:,.{0 if size >= 10 else 2}f} MB {_WHERE[rooms[0].tier]}"
        if len(rooms) > 1:
            text += f", and {sum(room.num_bytes for room in rooms[1:]) / 1e6:,.2f} MB for later stages"
        return text


def _room(num_rows: int, like: Parts, tier: Tier) -> Features | None:
    try:
        return Features(num_rows, like, tier)
    except (StorageError, RuntimeError, MemoryError):
        return None


def _is_worth_the_disk(program: InferenceProgram, inputs: Tensor, bytes_per_row: float) -> bool:
    """Return whether reading a row takes less time than computing it; the batch has been computed before."""
    began = time.perf_counter()
    program(inputs)
    return (time.perf_counter() - began) / len(inputs) > bytes_per_row / _DISK_RATE


def _picked(outputs: Parts, places: Sequence[Sequence[int]]) -> list[Parts]:
    return [tuple(outputs[place] for place in own) for own in places]


def _same(one: Parts, other: Parts) -> bool:
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def _bounds(num_rows: int, batch_size: int, num_processes: int) -> list[tuple[int, int]]:
    """Return the rows [start, end) that each process computes: whole batches, as evenly as they go."""
    num_batches = -(-num_rows // batch_size)
    cuts = [part * num_batches // num_processes * batch_size for part in range(num_processes + 1)]
    return [(start, min(end, num_rows)) for start, end in pairwise(cuts)]
