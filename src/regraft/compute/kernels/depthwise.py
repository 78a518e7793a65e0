"""Depthwise convolutions whose backward pass is as fast as their forward pass, on a CPU in bf16.

oneDNN has a fast bf16 kernel for the forward pass of a depthwise convolution, and reference code for much of its
backward pass: EfficientNet-lite0's layers at 160 px, batch 32, one core of a Xeon with AMX, take 0.05 s forward, 1.8 s
backward to the input and 2.3 s backward to the weights. The same gradients come from kernels that are fast:

- to the input, at stride 1: the *forward* convolution of the output's gradient with the flipped kernel;
- to the input, at stride 2: four of them, one for the pixels of each parity, which see every second tap;
- to the weights, from 5x5 on: those of a grouped convolution with 16 channels a group, of which the depthwise ones are
  the diagonal. Sixteen times the products, on matrix units that are far more than sixteen times as fast.
"""

from __future__ import annotations

from itertools import product
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["depthwise_convolution", "is_depthwise"]

_GROUP = 16
_SMALLEST_KERNEL = 5  # below, oneDNN's own kernel for the weights' gradient is fast


def is_depthwise(weight: Tensor, stride: tuple[int, int], padding: tuple[int, int], groups: int) -> bool:
    """Return whether a bf16 convolution with this weight (C, 1, k, k) is one whose backward pass is faster here."""
    channels, inside, height, width = weight.shape
    return (
        inside == 1
        and channels == groups
        and channels % _GROUP == 0
        and height == width
        and 1 < height <= 7
        and stride[0] == stride[1] <= 2
        and max(padding) < height
    )


def depthwise_convolution(images: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]) -> Tensor:
    """Return the convolution of bf16 images (N, C, H, W) with a weight (C, 1, k, k)."""
    result: Tensor = _Depthwise.apply(images, weight, stride, padding)
    return result


class _Depthwise(torch.autograd.Function):
    """A depthwise convolution of bf16 images (N, C, H, W) with a weight (C, 1, k, k)."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]) -> Tensor:
        images = images.contiguous(memory_format=torch.channels_last)
        ctx.save_for_backward(images, weight)
        ctx.stride, ctx.padding = tuple(stride), tuple(padding)
        with torch.autocast("cpu", enabled=False):
            return F.conv2d(images, weight, stride=stride, padding=padding, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        images, weight = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        to_images, to_weight = None, None
        with torch.autocast("cpu", enabled=False):
            if ctx.needs_input_grad[0]:
                to_images = _to_images(gradient, weight, images.shape, ctx.stride[0], ctx.padding)
            if ctx.needs_input_grad[1]:
                to_weight = _to_weight(gradient, images, weight, ctx.stride, ctx.padding)
        return to_images, to_weight, None, None


def _to_images(gradient: Tensor, weight: Tensor, shape: torch.Size, stride: int, padding: tuple[int, int]) -> Tensor:
    channels, size = len(weight), weight.shape[-1]
    if stride == 1:
        around = (size - 1 - padding[0], size - 1 - padding[1])
        return F.conv2d(gradient, weight.flip(2, 3), padding=around, groups=channels)
    result = torch.empty(shape, dtype=gradient.dtype, memory_format=torch.channels_last)
    for row, column in product(range(stride), repeat=2):
        taps = weight[:, :, row::stride, column::stride].flip(2, 3)
        rows = _seen_by(row, taps.shape[2], shape[2], gradient.shape[2], stride, padding[0])
        columns = _seen_by(column, taps.shape[3], shape[3], gradient.shape[3], stride, padding[1])
        if not (rows.num_pixels and columns.num_pixels):
            continue
        around = (rows.padding, columns.padding)
        result[:, :, rows.pixels, columns.pixels] = F.conv2d(gradient, taps, padding=around, groups=channels)[
            :, :, rows.kept, columns.kept
        ]
    return result


class _Phase(NamedTuple):
    """Along one side: pixels of the input, the padding of the gradient, and what of their convolution is kept."""

    num_pixels: int
    pixels: slice
    padding: int
    kept: slice


def _seen_by(tap: int, num_taps: int, length: int, positions: int, stride: int, padding: int) -> _Phase:
    """Return the input pixels under every `stride`-th tap of the kernel from `tap` on, with the padding and the crop.

    The input's pixel i meets tap t at position (i + padding - t) / stride of the output.
    """
    start = (tap - padding) % stride
    num_pixels = len(range(start, length, stride))
    first = (start + padding - tap) // stride  # where the first of these pixels meets the first of these taps
    before, after = num_taps - 1 - first, first + num_pixels - positions
    margin = max(before, after, 0)
    kept = slice(margin - before, margin - before + num_pixels)
    return _Phase(num_pixels, slice(start, None, stride), margin, kept)


def _to_weight(
    gradient: Tensor, images: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]
) -> Tensor:
    channels, _, height, width = weight.shape
    inside = 1 if height < _SMALLEST_KERNEL else _GROUP
    shape = weight.new_empty((channels, inside, height, width))
    result: Tensor = torch.ops.aten.convolution_backward(
        gradient, images, shape, None, stride, padding, (1, 1), False, (0, 0), channels // inside, (False, True, False)
    )[1]
    if inside == 1:
        return result
    own = torch.arange(channels) % inside
    return result[torch.arange(channels), own].unsqueeze(1)
