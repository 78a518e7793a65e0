"""Where the features of whole splits are kept: on the device, in memory or on the disk, for one stage or several."""

from __future__ import annotations

import mmap
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from regraft.data.cache.store import RESERVE_BYTES
from regraft.errors import StorageError
from regraft.machine.budget import memory_budget
from regraft.machine.cache_folder import cache_folder, private_folder
from regraft.machine.disk import disk_errors

__all__ = ["FeatureKey", "FeatureStore", "Features", "Tier", "as_stored", "choose_tier"]

Tier = Literal["device", "memory", "disk"]
_MOST = 0.5  # of what is free on the device and on the disk
_FILL_BYTES = 1 << 22


class FeatureKey(NamedTuple):
    """What features are a function of, beside the run: the prefix and its weights, the pixels, how they were varied."""

    prefix: str
    inputs: str
    split: str
    view: int | None


class _Layout(NamedTuple):
    shape: tuple[int, ...]
    channels_last: bool
    dtype: torch.dtype

    @classmethod
    def of(cls, part: Tensor) -> _Layout:
        nhwc = part.ndim == 4 and not part.is_contiguous() and part.is_contiguous(memory_format=torch.channels_last)
        return cls(tuple(part.shape[1:]), nhwc, part.dtype)

    def flat(self, part: Tensor) -> Tensor:
        """Turn (N, ...) into (N, numbers of a row), as they lie in memory."""
        return (part.permute(0, 2, 3, 1) if self.channels_last else part).reshape(len(part), -1)

    def shaped(self, flat: Tensor) -> Tensor:
        """Return the inverse of `flat`."""
        if not self.channels_last:
            return flat.reshape(len(flat), *self.shape)
        channels, height, width = self.shape
        return flat.reshape(len(flat), height, width, channels).permute(0, 3, 1, 2)


class Features:
    """Room for the features of so many rows, in the tier given, laid out in memory as the parts of a first batch are.

    Raises:
        StorageError: The disk has no room.
    """

    def __init__(self, num_rows: int, like: Sequence[Tensor], tier: Tier) -> None:
        self.tier, self.num_rows = tier, num_rows
        self.device = like[0].device
        self._layouts = [_Layout.of(part) for part in like]
        self.parts = [_room(num_rows, layout, tier, self.device) for layout in self._layouts]

    @property
    def num_bytes(self) -> int:
        return sum(part.numel() * part.element_size() for part in self.parts)

    def write(self, start: int, parts: Sequence[Tensor]) -> None:
        """Keep the features of the rows from `start` on."""
        for room, layout, part in zip(self.parts, self._layouts, parts, strict=True):
            room[start : start + len(part)] = layout.flat(part)

    def read(self, rows: Tensor | slice) -> tuple[Tensor, ...]:
        """Return a copy of the features of these rows on the device, with the same bits and layout as when they were
        made.

        A copy, because networks change their inputs in place.
        """
        if isinstance(rows, Tensor) and self.tier == "device":
            rows = rows.to(self.device)
        copies = (room[rows].clone() if isinstance(rows, slice) else room[rows] for room in self.parts)
        return self._shaped(copies)

    def all(self) -> tuple[Tensor, ...]:
        """Return the features of all rows on the device; not a copy where they are there: they must not be changed."""
        return self._shaped(self.parts)

    def _shaped(self, flats: Iterable[Tensor]) -> tuple[Tensor, ...]:
        pairs = zip(flats, self._layouts, strict=True)
        return tuple(layout.shaped(flat.to(self.device, non_blocking=True)) for flat, layout in pairs)


@dataclass
class _Entry:
    features: Features
    until: int


class FeatureStore:
    """The features that a run keeps, and up to which stage each is needed."""

    def __init__(self) -> None:
        self._entries: dict[FeatureKey, _Entry] = {}

    def put(self, key: FeatureKey, features: Features, *, until: int) -> None:
        """Keep features up to the end of the stage of the number `until`."""
        self._entries[key] = _Entry(features, until)

    def get(self, key: FeatureKey) -> Features | None:
        """Return the features stored under this key; None where there are none."""
        entry = self._entries.get(key)
        return None if entry is None else entry.features

    def begin(self, stage: int) -> None:
        """Drop the features that no stage from this one on needs."""
        self._entries = {key: entry for key, entry in self._entries.items() if entry.until >= stage}


def as_stored(parts: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Return features laid out as `Features.read` gives them: kernels may choose other roundings for another layout."""
    layouts = [_Layout.of(part) for part in parts]
    return tuple(layout.shaped(layout.flat(part)) for layout, part in zip(layouts, parts, strict=True))


def num_bytes_of(parts: Sequence[Tensor], num_rows: int) -> int:
    """Return the size in bytes of this many rows of features like these."""
    return num_rows * sum(part[0].numel() * part.element_size() for part in parts)


def choose_tier(num_bytes: int, device: torch.device) -> Tier | None:
    """Return the fastest storage with room for so many bytes: device, memory or disk; None where there is none."""
    if device.type == "cuda" and num_bytes <= _MOST * torch.cuda.mem_get_info(device)[0]:
        return "device"
    if num_bytes <= memory_budget():
        return "memory"
    try:
        free = shutil.disk_usage(_folder()).free
    except (StorageError, OSError):
        return None
    return "disk" if num_bytes <= min(_MOST * free, free - RESERVE_BYTES) else None


def _folder() -> os.PathLike[str]:
    return private_folder(cache_folder() / "features")


def _room(num_rows: int, layout: _Layout, tier: Tier, device: torch.device) -> Tensor:
    width = 1
    for side in layout.shape:
        width *= side
    if tier == "disk":
        return _mapped(num_rows, width, layout.dtype)
    where = device if tier == "device" else torch.device("cpu")
    pinned = tier == "memory" and device.type == "cuda"
    return torch.empty((num_rows, width), dtype=layout.dtype, device=where, pin_memory=pinned)


def _mapped(num_rows: int, width: int, dtype: torch.dtype) -> Tensor:
    """Return a tensor in a file without a name, all of whose bytes the disk has promised: it goes when the tensor
    goes.
    """
    num_bytes = num_rows * width * dtype.itemsize
    folder = private_folder(cache_folder() / "features")
    with disk_errors(folder), tempfile.TemporaryFile(dir=folder) as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, num_bytes)
        else:
            for start in range(0, num_bytes, _FILL_BYTES):
                file.write(bytes(min(_FILL_BYTES, num_bytes - start)))
            file.flush()
        mapped = mmap.mmap(file.fileno(), num_bytes)
    return torch.frombuffer(mapped, dtype=dtype).reshape(num_rows, width)
