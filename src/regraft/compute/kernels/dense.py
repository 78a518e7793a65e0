"""Convolutions as matrix products, on a CPU in bf16, where those are faster than oneDNN's convolutions.

A 1x1 convolution of channels-last images is a matrix product of their pixels, forward and in both directions backward,
and so is the weights' gradient of any convolution once the pixels under its window are laid side by side. oneDNN's
kernels for the weights' gradient keep its units busy a fourth as well as its matrix products: all 1x1 convolutions of
ResNet50 at 160 px, batch 32, two cores of a Xeon with AMX, take 0.12 s there and 0.07 s as products; a 3x3 convolution
of 512 channels on 5x5 pixels 12 ms and 7 ms.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from regraft.compute.kernels.narrow import output_size

__all__ = ["dense_convolution", "is_faster_as_product"]

_FEWEST_CHANNELS = 64  # of a 1x1 convolution, on both sides
_FEWEST_CHANNELS_OF_WINDOW = 256
_MOST_POSITIONS = 36  # of a window: with more of them, laying pixels side by side takes longer than it saves


def is_faster_as_product(
    images: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int], groups: int
) -> bool:
    """Return whether a bf16 convolution of these images (N, C, H, W) gains from being computed here."""
    if groups != 1 or not images.is_contiguous(memory_format=torch.channels_last):
        return False
    fewest = min(weight.shape[:2])
    if weight.shape[2:] == (1, 1):
        return fewest >= _FEWEST_CHANNELS and padding == (0, 0)
    height, width = output_size(images, weight, stride, padding)
    return fewest >= _FEWEST_CHANNELS_OF_WINDOW and 0 < height * width <= _MOST_POSITIONS


def dense_convolution(images: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]) -> Tensor:
    """Return the convolution of bf16 images (N, C, H, W) in channels-last with a weight (D, C, k, l): (N, D, H',
    W').
    """
    function = _Pointwise if weight.shape[2:] == (1, 1) else _Window
    result: Tensor = function.apply(images, weight, stride, padding)
    return result


class _Pointwise(torch.autograd.Function):
    """A convolution with a window of one pixel and no padding."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]) -> Tensor:
        seen = images[:, :, :: stride[0], :: stride[1]]
        pixels = _pixels(seen)
        ctx.save_for_backward(pixels, weight)
        ctx.shape, ctx.stride = images.shape, stride
        with torch.autocast("cpu", enabled=False):
            return _images(pixels @ _matrix(weight).t(), seen.shape)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        pixels, weight = ctx.saved_tensors
        rows = _pixels(gradient)
        to_images, to_weight = None, None
        with torch.autocast("cpu", enabled=False):
            if ctx.needs_input_grad[0]:
                to_images = _images(rows @ _matrix(weight), gradient.shape)
                if ctx.stride != (1, 1):
                    spread = to_images.new_zeros(ctx.shape).contiguous(memory_format=torch.channels_last)
                    spread[:, :, :: ctx.stride[0], :: ctx.stride[1]] = to_images
                    to_images = spread
            if ctx.needs_input_grad[1]:
                to_weight = (rows.t() @ pixels)[:, :, None, None]
        return to_images, to_weight, None, None


class _Window(torch.autograd.Function):
    """A convolution whose gradient to the weights is a matrix product of the pixels under the window."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor, stride: tuple[int, int], padding: tuple[int, int]) -> Tensor:
        ctx.save_for_backward(images, weight)
        ctx.stride, ctx.padding = stride, padding
        with torch.autocast("cpu", enabled=False):
            return F.conv2d(images, weight, stride=stride, padding=padding)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        images, weight = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        to_images, to_weight = None, None
        with torch.autocast("cpu", enabled=False):
            if ctx.needs_input_grad[0]:
                to_images = torch.ops.aten.convolution_backward(
                    gradient, images, weight, None, ctx.stride, ctx.padding, (1, 1), False, (0, 0), 1,
                    (True, False, False),
                )[0]  # fmt: skip
            if ctx.needs_input_grad[1]:
                windows = _windows(images, weight.shape[2:], ctx.stride, ctx.padding, gradient.shape[2:])
                channels, depth, height, width = weight.shape
                to_weight = (_pixels(gradient).t() @ windows).view(channels, height, width, depth).permute(0, 3, 1, 2)
        return to_images, to_weight, None, None


def _windows(
    images: Tensor, kernel: torch.Size, stride: tuple[int, int], padding: tuple[int, int], positions: torch.Size
) -> Tensor:
    """Return the pixels under the window at each of its positions: (N * H' * W', k * l * C)."""
    padded = F.pad(images.permute(0, 2, 3, 1), (0, 0, padding[1], padding[1], padding[0], padding[0]))
    of_image, of_row, of_pixel, of_channel = padded.stride()
    num_images, channels = images.shape[:2]
    shape = (num_images, *positions, *kernel, channels)
    strides = (of_image, of_row * stride[0], of_pixel * stride[1], of_row, of_pixel, of_channel)
    return padded.as_strided(shape, strides).reshape(-1, kernel[0] * kernel[1] * channels)


def _pixels(images: Tensor) -> Tensor:
    """Turn (N, C, H, W) into (N * H * W, C); no copy of channels-last images."""
    return images.permute(0, 2, 3, 1).reshape(-1, images.shape[1])


def _images(pixels: Tensor, shape: torch.Size) -> Tensor:
    """Turn (N * H * W, C) into (N, C, H, W) in channels-last, without a copy; N, H and W are those of `shape`."""
    return pixels.view(shape[0], shape[2], shape[3], -1).permute(0, 3, 1, 2)


def _matrix(weight: Tensor) -> Tensor:
    return weight.reshape(len(weight), -1)
