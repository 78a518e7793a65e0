"""Convolutions that oneDNN computes wrongly, and how to have them right.

In bf16 on processors with AMX, a convolution with a stride, of many channels, whose output is one pixel wide and
several high leaves all rows but the first unwritten: what lies in memory there becomes the output (torch 2.15, 256
channels, images of 4x3 pixels, 2x2 kernels, stride 2: NaN, or 1e36; in fp32 right). With height and width exchanged it
is right.
Tall images come to such shapes: 64x32 pixels are 2x1 at the end of a network.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["is_narrow", "narrow_convolution", "output_size"]

Pair = tuple[int, int]


def output_size(images: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Pair:
    """Return height and width of the convolution of images (N, C, H, W) with a weight (D, C / groups, k, l),
    undilated.
    """
    height, width = (
        (images.shape[2 + axis] + 2 * padding[axis] - weight.shape[2 + axis]) // stride[axis] + 1 for axis in (0, 1)
    )
    return height, width


def is_narrow(images: Tensor, weight: Tensor, stride: Pair, padding: Pair, groups: int) -> bool:
    """Return whether a bf16 convolution on the CPU is one of those."""
    if groups != 1 or max(stride) == 1:
        return False
    height, width = output_size(images, weight, stride, padding)
    return width == 1 and height > 1


def narrow_convolution(images: Tensor, weight: Tensor, stride: Pair, padding: Pair) -> Tensor:
    """Return the convolution, with height and width exchanged; its gradients too."""
    result = F.conv2d(images.transpose(2, 3), weight.transpose(2, 3), stride=stride[::-1], padding=padding[::-1])
    return result.transpose(2, 3).contiguous(memory_format=torch.channels_last)
