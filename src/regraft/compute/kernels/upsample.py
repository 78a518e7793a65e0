"""Maps brought to twice their size, with a backward pass that is as fast as the forward pass, on a CPU.

torch's gradients of `interpolate` go pixel by pixel. One core of a Xeon takes 51 ms for the nearest neighbours of
4 x 48 bf16 maps of 192 x 240 pixels, and 45 ms for the linear interpolation of 4 x 11 fp32 maps of 384 x 480; summed by
the pooling kernel, the first takes 5 ms, and as sums of every second pixel, the second takes 11 ms.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["doubled", "is_doubling"]


def is_doubling(
    maps: Tensor,
    *,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    **others: Any,
) -> bool:
    """Return whether these arguments of `interpolate` bring maps (N, C, H, W) on the CPU to twice their size.

    The sums of a linear interpolation's gradient would lose digits in bf16.
    """
    if maps.ndim != 4 or maps.device.type != "cpu" or not maps.is_floating_point() or not maps.numel():
        return False
    if scale_factor is not None or any(others.values()) or align_corners or not isinstance(size, (tuple, list)):
        return False
    known = mode == "nearest" or (mode == "bilinear" and maps.dtype == torch.float32)
    return known and tuple(size) == (2 * maps.shape[2], 2 * maps.shape[3])


def doubled(maps: Tensor, mode: str) -> Tensor:
    """Return the maps at twice their size: the result of `interpolate` where `is_doubling` holds."""
    result: Tensor = (_Nearest if mode == "nearest" else _Linear).apply(maps)
    return result


class _Nearest(torch.autograd.Function):
    """(N, C, H, W) -> (N, C, 2H, 2W): each pixel four times."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor) -> Tensor:
        return F.interpolate(maps, scale_factor=2, mode="nearest")

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return F.avg_pool2d(gradient, 2, divisor_override=1)


class _Linear(torch.autograd.Function):
    """(N, C, H, W) -> (N, C, 2H, 2W): along each side, 3/4 of the pixel that it lies in and 1/4 of the next one."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor) -> Tensor:
        return F.interpolate(maps, scale_factor=2, mode="bilinear", align_corners=False)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        num_images, channels, height, width = gradient.shape
        result = gradient.new_empty((num_images, channels, height // 2, width // 2))
        for image in range(num_images):
            for channel in range(channels):  # one map stays in the processor's cache
                result[image, channel] = _halved(_halved(gradient[image, channel], 0), 1)
        return result


def _halved(gradient: Tensor, side: int) -> Tensor:
    """Return the gradient of doubling (H, W) along one side: each pixel's two, and a share of their neighbours."""
    first, second = (gradient[::2], gradient[1::2]) if side == 0 else (gradient[:, ::2], gradient[:, 1::2])
    last = first.shape[side] - 1
    result: Tensor = (first + second).mul_(0.75)
    result.narrow(side, 1, last).add_(second.narrow(side, 0, last), alpha=0.25)
    result.narrow(side, 0, last).add_(first.narrow(side, 1, last), alpha=0.25)
    # At the border there is no neighbour, and the pixel counts in its place.
    result.narrow(side, 0, 1).add_(first.narrow(side, 0, 1), alpha=0.25)
    result.narrow(side, last, 1).add_(second.narrow(side, last, 1), alpha=0.25)
    return result
