"""One pass of a split through the frozen part, whose features are kept for this stage and, on the way, later ones."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from regraft.data.cache import PixelCache
from regraft.data.labels import Labels
from regraft.data.loader import batches
from regraft.errors import StorageError
from regraft.models.inputs import Normaliser
from regraft.models.numerics import Numerics
from regraft.models.program import InferenceProgram, joint_prefix
from regraft.train.ahead import Wanted
from regraft.train.engine import Engine
from regraft.train.shelf import FeatureKey, Features, FeatureShelf, Place, choose_place, num_bytes_of

__all__ = ["FeaturePass", "program_batch_size"]

Indices = npt.NDArray[np.int64]
Parts = tuple[Tensor, ...]
_DISK_RATE = 3e8  # bytes a second that a disk is sure to give back
_PLACES = {"device": "on the device", "memory": "in memory", "disk": "on the disk"}


def program_batch_size(numerics: Numerics) -> int:
    """Images that the prefix program takes at a time.

    On a CPU small batches keep activations in the cache: EfficientNet-lite0 at 224 px in bf16 on 2 cores gives 314
    images/s at 8 and 343 at 16 and 32; more only take more memory.
    """
    return 16 if torch.device(numerics.device).type == "cpu" else 128


@dataclass
class FeaturePass:
    """A pass of one split (or one view of it) through a frozen part.

    Attributes:
        prefix: The frozen part.
        boundary: Where it ends.
        key: Under which its features are kept.
        wanted: What later stages read of the same images.
        model: The whole model.
        numerics: What to compute with.
        shelf: Where features are kept.
        stage: The present stage.
        views: How many such passes are still to come, with this one: all of them need room.
        engine: Which processes share the work.
        check: Called after each batch; may raise to stop.
        say: Called with a line that says what is kept, and where.
    """

    prefix: InferenceProgram
    boundary: tuple[str, ...]
    key: FeatureKey
    wanted: Sequence[Wanted]
    model: nn.Module
    numerics: Numerics
    shelf: FeatureShelf
    stage: int
    views: int
    engine: Engine
    check: Callable[[float], None]
    say: Callable[[str], None]
    _compute: Callable[[Tensor], list[Parts]] = field(init=False)
    _later: list[Wanted] = field(init=False)

    def run(
        self,
        cache: PixelCache,
        labels: Labels,
        normaliser: Normaliser,
        shown: Callable[[Tensor, Indices], Tensor],
    ) -> Features | None:
        """The features of all rows; None when they are not worth keeping, or do not fit anywhere.

        Args:
            cache: The images.
            labels: Their labels.
            normaliser: Pixels -> device.
            shown: Pixels and their rows -> network input.
        """
        size = self.prefix.batch_size
        bounds = _bounds(len(cache), size, self.engine.num_processes)
        start, end = bounds[self.engine.rank]
        order = np.arange(start, end, dtype=np.int64) if end > start else np.arange(min(size, len(cache)))
        rooms: list[Features] = []
        for batch, images in normaliser.uploaded(batches(cache, labels, order, size, allocate=normaliser.allocate)):
            inputs = shown(images, batch.indices)
            if not rooms:
                self._choose_program(inputs)
            outputs = self._compute(inputs)
            rooms = rooms or self._rooms(outputs, inputs, len(cache))
            if not rooms:
                return None
            for room, parts in zip(rooms, outputs, strict=False):
                room.write(int(batch.indices[0]), parts)
            self.check(float(len(batch.indices)) * self.engine.num_processes)
        for room in rooms:
            self.engine.exchange(room.parts, bounds)
        self._put(rooms)
        return rooms[0] if rooms else None

    def _choose_program(self, inputs: Tensor) -> None:
        """Compute what later stages want in the same pass, where that gives the very bits of their own programs."""
        self._later = [
            item
            for item in self.wanted
            if item.key != self.key.prefix and self.shelf.get(self.key._replace(prefix=item.key)) is None
        ]
        self._compute = lambda images: [self.prefix(images)]
        made = (
            joint_prefix(self.model, [self.boundary, *(item.boundary for item in self._later)]) if self._later else None
        )
        if made is None:
            self._later = []
            return
        size = self.prefix.batch_size
        joint, places = InferenceProgram(made[0], self.numerics, size), made[1]
        alone = [self.prefix, *(InferenceProgram(item.prefix, self.numerics, size) for item in self._later)]
        pairs = zip(_picked(joint(inputs), places), (program(inputs) for program in alone), strict=True)
        if self.engine.any(any(not _same(one, other) for one, other in pairs)):
            self._later = []
        else:
            self._compute = lambda images: _picked(joint(images), places)

    def _rooms(self, outputs: Sequence[Parts], inputs: Tensor, num_rows: int) -> list[Features]:
        """Room for the features of this stage, and of later ones as far as there is some; or none at all."""
        num_bytes = num_bytes_of(outputs[0], num_rows)
        place = choose_place(num_bytes * self.views, outputs[0][0].device)
        slow = place == "disk" and not self._is_worth_the_disk(inputs, num_bytes / num_rows)
        room = None if place is None or slow else _room(num_rows, outputs[0], place)
        if self.engine.any(room is None):
            size = f"{num_bytes * self.views / 1e6:,.0f} MB"
            reason = f"{size} would come no faster from the disk" if slow else f"there is no room for {size}"
            self.say(f"features: {self.key.split} images pass the frozen part in every epoch ({reason})")
            return []
        rooms, later = [room] if room is not None else [], []
        for item, parts in zip(self._later, outputs[1:], strict=True):
            num_bytes += num_bytes_of(parts, num_rows)
            fits = place != "disk" and choose_place(num_bytes, parts[0].device) == place
            if place is None or self.engine.any(not fits):
                break
            rooms.append(Features(num_rows, parts, place))
            later.append(item)
        self._later = later
        return rooms

    def _is_worth_the_disk(self, inputs: Tensor, bytes_per_row: float) -> bool:
        """Whether reading a row takes less time than computing it; the batch has been computed before."""
        began = time.perf_counter()
        self.prefix(inputs)
        return (time.perf_counter() - began) / len(inputs) > bytes_per_row / _DISK_RATE

    def _put(self, rooms: Sequence[Features]) -> None:
        if not rooms:
            return
        until = max([self.stage, *(item.stage for item in self.wanted if item.key == self.key.prefix)])
        self.shelf.put(self.key, rooms[0], until=until)
        for item, room in zip(self._later, rooms[1:], strict=True):
            self.shelf.put(self.key._replace(prefix=item.key), room, until=item.stage)
        self.say(self._account(rooms))

    def _account(self, rooms: Sequence[Features]) -> str:
        size = self.views * rooms[0].num_bytes / 1e6
        text = f"features: {rooms[0].num_rows:,} {self.key.split} images pass the frozen part once"
        text += f", {size:,.{0 if size >= 10 else 2}f} MB kept {_PLACES[rooms[0].place]}"
        if len(rooms) > 1:
            text += f", and {sum(room.num_bytes for room in rooms[1:]) / 1e6:,.2f} MB for later stages"
        return text


def _room(num_rows: int, like: Parts, place: Place) -> Features | None:
    try:
        return Features(num_rows, like, place)
    except (StorageError, RuntimeError, MemoryError):
        return None


def _picked(outputs: Parts, places: Sequence[Sequence[int]]) -> list[Parts]:
    return [tuple(outputs[place] for place in own) for own in places]


def _same(one: Parts, other: Parts) -> bool:
    return len(one) == len(other) and all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def _bounds(num_rows: int, batch_size: int, num_processes: int) -> list[tuple[int, int]]:
    """The rows [start, end) that each process computes: whole batches, as evenly as they go."""
    num_batches = -(-num_rows // batch_size)
    cuts = [part * num_batches // num_processes * batch_size for part in range(num_processes + 1)]
    return [(start, min(end, num_rows)) for start, end in pairwise(cuts)]
