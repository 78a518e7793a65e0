"""Images of any size for networks that halve it: padded at the bottom and on the right, and cropped back.

The border pixels are repeated (replication): it needs no size of its own, unlike reflection, and paints no frame of a
colour that the image does not have, unlike zeros. Nothing is padded where the size fits. The original pixels keep
their places, so that a tile whose corner lies on a multiple of the stride sees the grid that the whole image sees.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["crop_like", "pad_to_stride", "padded_size"]


def pad_to_stride(images: Tensor, stride: int, least: int) -> Tensor:
    """Return (N, C, H, W) with both sides brought to the next multiple of `stride`, and to `least` at least.

    Args:
        images: Images of any size.
        stride: What both sides become multiples of.
        least: The smallest side, a multiple of `stride`.
    """
    height, width = images.shape[-2], images.shape[-1]
    pads: list[Any] = [-width % stride, -height % stride]
    if least > stride:
        pads = [torch.sym_max(pads[0], least - width), torch.sym_max(pads[1], least - height)]
    return F.pad(images, (0, pads[0], 0, pads[1]), mode="replicate")


def crop_like(maps: Tensor, images: Tensor) -> Tensor:
    """Return the upper left part of `maps` (N, C, H', W'), as high and wide as `images`."""
    return maps[..., : images.shape[-2], : images.shape[-1]]


def padded_size(model: nn.Module, size: tuple[int, int]) -> tuple[int, int]:
    """Return the height and width that a network computes with, given images of this size; of other networks the same.

    Args:
        model: One that pads its input by `pad_to_stride`, or any other.
        size: Height and width of its input.
    """
    told = [getattr(model, name, 1) for name in ("stride", "least")]
    stride, least = (number if isinstance(number, int) and number > 0 else 1 for number in told)
    height, width = (max(least, side + -side % stride) for side in size)
    return height, width
