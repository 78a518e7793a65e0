"""Mixup and CutMix: images blended with others of their batch, and their targets with them.

Each image's share and box are functions of seed, epoch and sample, as its augmentation is; its partner is the image at
its batch's mirrored place.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from regraft.data.augment.beta import beta_from_uniform
from regraft.data.random import uniform

__all__ = ["Mix", "mix", "shares_of"]

_STREAM = 0x6D6978  # keeps these numbers apart from others drawn with the same seed and epoch


@dataclass(frozen=True)
class Mix:
    """How images are mixed.

    Attributes:
        mixup: Alpha of mixup's Beta(alpha, alpha) (Zhang et al. 2017, arXiv:1710.09412); 0 for none.
        cutmix: Alpha of CutMix's (Yun et al. 2019, arXiv:1905.04899); 0 for none. With both, each image gets either.
        num_classes: Columns of the targets.
    """

    mixup: float
    cutmix: float
    num_classes: int


def shares_of(labels: Tensor, num_classes: int) -> Tensor:
    """Return labels (N,) or (N, C) as fp32 shares (N, C)."""
    if labels.ndim == 2:
        return labels.float()
    return torch.nn.functional.one_hot(labels.long(), num_classes).float()


def mix(
    images_NCHW: Tensor, labels: Tensor, how: Mix, *, seed: int, epoch: int, sample_ids: npt.NDArray[np.int64]
) -> tuple[Tensor, Tensor]:
    """Return the images, each with a part of another one, and the shares (N, C) of the classes in them.

    Args:
        images_NCHW: uint8 or float; they are not changed.
        labels: int64 (N,), or 0 and 1 of shape (N, C).
        how: What is mixed.
        seed: The run's seed.
        epoch: The epoch.
        sample_ids: N numbers that name the samples.
    """
    chosen, drawn, *place = uniform(seed, _STREAM, epoch, sample_ids, num=4).T
    cuts = np.full(len(chosen), how.cutmix > 0) & ((chosen < 0.5) | (how.mixup == 0))
    kept = np.where(cuts, _beta(how.cutmix, drawn), _beta(how.mixup, drawn))
    boxes = _boxes(np.where(cuts, kept, 1.0), place, (images_NCHW.shape[2], images_NCHW.shape[3]))
    height, width = images_NCHW.shape[2:]
    kept = np.where(cuts, 1 - (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1]) / (height * width), kept)
    images = images_NCHW.float()
    share = torch.from_numpy(kept).to(images)
    blended = _lerp(images, torch.where(torch.from_numpy(cuts).to(images.device), 1.0, share))
    for row in np.flatnonzero(cuts).tolist():
        top, left, bottom, right = boxes[row].tolist()
        blended[row, :, top:bottom, left:right] = images[len(images) - 1 - row, :, top:bottom, left:right]
    return blended, _lerp(shares_of(labels, how.num_classes), share)


def _lerp(values: Tensor, share: Tensor) -> Tensor:
    """Return each row's share of itself, and the rest of the row at the mirrored place."""
    share = share.reshape(-1, *[1] * (values.ndim - 1)).to(values.dtype)
    return values * share + values.flip(0) * (1 - share)


def _beta(alpha: float, drawn: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return beta_from_uniform(alpha, drawn) if alpha > 0 else np.ones_like(drawn)


def _boxes(
    kept: npt.NDArray[np.float64], place: list[npt.NDArray[np.float64]], size: tuple[int, int]
) -> npt.NDArray[np.int64]:
    """Return (top, left, bottom, right) of a box of the area 1 - kept around a place in the image, cut off at its
    border.
    """
    edges = []
    for at, side in zip(place, size, strict=True):
        length, centre = np.floor(side * np.sqrt(1 - kept)), np.floor(at * side)
        edges.append((np.clip(centre - length // 2, 0, side), np.clip(centre + (length + 1) // 2, 0, side)))
    (top, bottom), (left, right) = edges
    return np.stack([top, left, bottom, right], axis=1).astype(np.int64)
