"""Large images in overlapping tiles, with blended seams and bounded memory.

The corners of the tiles lie on multiples of the network's stride, so that each tile sees the grid that the whole image
would. Of an overlap the outer quarter on each side is thrown away and the middle half is blended: where everything that
a pixel depends on lies within a quarter of the overlap, tiles give what the whole image gives. Tiles are computed row
by row; rows that no later tile touches are handed on, so no map of all classes is ever held for the whole image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from regraft.errors import SettingsError

__all__ = ["Strip", "TiledMap", "predict_tiled", "tile_strips"]

TTA = Literal["flip"]
Program = Callable[[Tensor], Any]  # images (N, C, h, w) -> logits (N, classes, h, w), or a tuple of them


@dataclass(frozen=True)
class Strip:
    """Rows of an image that are done: `probabilities` (classes, rows, W), fp32 on the CPU, from the row `top` on."""

    top: int
    probabilities: Tensor


@dataclass(frozen=True)
class TiledMap:
    """What was predicted for each pixel of an image.

    Attributes:
        labels: (H, W), uint8 (uint16 above 256 classes): the number of the most probable class.
        confidence: (H, W), float32: its probability.
        probabilities: (classes, H, W), fp32, where they were asked for.
    """

    labels: npt.NDArray[np.uint8] | npt.NDArray[np.uint16]
    confidence: npt.NDArray[np.float32]
    probabilities: Tensor | None = None


def predict_tiled(
    program: Program,
    image_CHW: Tensor,
    *,
    tile: int = 512,
    overlap: int = 128,
    tta: TTA | None = None,
    prepare: Callable[[Tensor], Tensor] | None = None,
    stride: int | None = None,
    batch_size: int = 1,
    probabilities: bool = False,
) -> TiledMap:
    """Predict one image of any size; an image that fits into one tile is predicted whole.

    Args:
        program: The network, or an inference copy of it: images (N, C, h, w) -> logits (N, classes, h, w).
        image_CHW: The image, on the CPU; uint8 saves memory where `prepare` normalises.
        tile: Side of the tiles in pixels, rounded up to a multiple of the stride.
        overlap: How many pixels neighbouring tiles share, at least.
        tta: `flip` predicts each tile and its mirror image, and takes the mean of the probabilities.
        prepare: Turns cut-out images (N, C, h, w) into what the program takes; None takes them as they are.
        stride: What the corners of the tiles are multiples of; None asks the network (`program.stride`), else 32.
        batch_size: How many tiles are computed at once.
        probabilities: Whether the probabilities of all classes are kept for the whole image.

    Raises:
        SettingsError: Tiles that do not reach beyond their overlap, or an unknown `tta`.
    """
    height, width = image_CHW.shape[-2:]
    confidence = np.empty((height, width), np.float32)
    labels: Any = None
    kept: Tensor | None = None
    strips = tile_strips(
        program,
        image_CHW,
        tile=tile,
        overlap=overlap,
        tta=tta,
        prepare=prepare,
        stride=stride,
        batch_size=batch_size,
    )
    for strip in strips:
        num_classes, rows, _ = strip.probabilities.shape
        if labels is None:
            labels = np.empty((height, width), np.uint8 if num_classes <= 256 else np.uint16)
            kept = torch.empty((num_classes, height, width)) if probabilities else None
        best, places = strip.probabilities.max(dim=0)
        labels[strip.top : strip.top + rows] = places.numpy()
        confidence[strip.top : strip.top + rows] = best.numpy()
        if kept is not None:
            kept[:, strip.top : strip.top + rows] = strip.probabilities
    return TiledMap(labels, confidence, kept)


@torch.no_grad()
def tile_strips(
    program: Program,
    image_CHW: Tensor,
    *,
    tile: int = 512,
    overlap: int = 128,
    tta: TTA | None = None,
    prepare: Callable[[Tensor], Tensor] | None = None,
    stride: int | None = None,
    batch_size: int = 1,
) -> Iterator[Strip]:
    """Yield the probabilities of an image in strips, top to bottom; arguments and errors as of `predict_tiled`.

    Memory: (classes, tile, W) floats, beside what the program needs for `batch_size` tiles.
    """
    stride = stride or int(getattr(program, "stride", 32))
    tile = -(-tile // stride) * stride
    step = (tile - overlap) // stride * stride
    _check(tile, overlap, step, stride, tta, batch_size)
    height, width = image_CHW.shape[-2:]
    tops, lefts = _origins(height, tile, step, stride), _origins(width, tile, step, stride)
    blend: Tensor | None = None
    weights = torch.zeros((tile, width))
    for top, following in zip(tops, [*tops[1:], height], strict=True):
        bottom = min(top + tile, height)
        along = _ramp(top, bottom, height, tile - step)
        for crops in _crops(lefts, width, tile, batch_size):
            images = torch.stack([image_CHW[:, top:bottom, left:right] for left, right in crops])
            predicted = _probabilities(program, images if prepare is None else prepare(images), tta)
            if blend is None:
                blend = torch.zeros((predicted.shape[1], tile, width))
            for (left, right), maps in zip(crops, predicted, strict=True):
                weight = along[:, None] * _ramp(left, right, width, tile - step)
                blend[:, : bottom - top, left:right] += maps * weight
                weights[: bottom - top, left:right] += weight
        if blend is not None:
            done = following - top
            yield Strip(top, blend[:, :done] / weights[:done])
            blend, weights = _moved_up(blend, done), _moved_up(weights[None], done)[0]


def _check(tile: int, overlap: int, step: int, stride: int, tta: str | None, batch_size: int) -> None:
    mistakes = []
    if overlap < 0 or step < stride:
        mistakes.append(
            f"overlap is {overlap} for tiles of {tile} pixels; with a stride of {stride} it is at least 0 and at most "
            f"{tile - stride}"
        )
    if tta not in (None, "flip"):
        mistakes.append(f"tta is {tta!r}; it is flip, or none")
    if batch_size < 1:
        mistakes.append(f"batch_size is {batch_size}; it is at least 1")
    if mistakes:
        raise SettingsError("The image cannot be cut as described.", "", "correct these settings", details=mistakes)


def _origins(size: int, tile: int, step: int, stride: int) -> list[int]:
    """Return the start of each tile along one side; the last tile reaches the end."""
    last = max(0, -(-(size - tile) // stride) * stride)
    return [*range(0, last, step), last]


def _crops(lefts: list[int], width: int, tile: int, batch_size: int) -> Iterator[list[tuple[int, int]]]:
    """Return left and right of the tiles of a row, in batches of tiles of one width."""
    spans = [(left, min(left + tile, width)) for left in lefts]
    for _, same in groupby(spans, key=lambda span: span[1] - span[0]):
        members = list(same)
        yield from (members[start : start + batch_size] for start in range(0, len(members), batch_size))


def _ramp(start: int, stop: int, size: int, overlap: int) -> Tensor:
    """Return the weight of each row (or column) of a tile: 0 in the outer quarter of an overlap, rising to 1 in its
    middle.
    """
    places = torch.arange(start, stop, dtype=torch.float32) + 0.5
    weight = torch.ones(stop - start)
    if overlap and start > 0:
        weight = weight.minimum((places - start - overlap / 4) / (overlap / 2))
    if overlap and stop < size:
        weight = weight.minimum((stop - places - overlap / 4) / (overlap / 2))
    return weight.clamp(0, 1)


def _probabilities(program: Program, images: Tensor, tta: str | None) -> Tensor:
    """Return (N, classes, h, w), fp32 on the CPU."""
    probabilities = _softmax(program(images))
    if tta == "flip":
        probabilities = (probabilities + _softmax(program(images.flip(-1))).flip(-1)) / 2
    return probabilities


def _softmax(logits: Any) -> Tensor:
    tensor: Tensor = logits[0] if isinstance(logits, tuple) else logits
    return tensor.float().softmax(dim=1).cpu()


def _moved_up(maps: Tensor, rows: int) -> Tensor:
    """Return the maps without their first rows, with as many rows of zeros below."""
    return torch.cat([maps[:, rows:], maps.new_zeros((maps.shape[0], rows, maps.shape[2]))], dim=1)
