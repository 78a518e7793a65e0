"""Brightness, contrast, saturation and hue of whole batches: one affine map of the channels for each image."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

__all__ = ["recolour_"]

Array = npt.NDArray[np.float64]

_GREY = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601 luma, as Pillow and torchvision
# NTSC 1953: luma and the two chroma axes; a rotation of the chroma plane turns the hue and leaves greys as they are.
_YIQ = np.array([_GREY, [0.595716, -0.274453, -0.321263], [0.211456, -0.522591, 0.311135]])
# Only single additions and multiplications in this module, each exactly rounded: a fused or a reordered one may come
# out differently in another vector lane or another batch.


def recolour_(
    pixels: Tensor,
    *,
    brightness: Array | None = None,
    contrast: Array | None = None,
    saturation: Array | None = None,
    hue: Array | None = None,
    white: float = 255.0,
) -> Tensor:
    """Change the colours of each image in place, clipped at the end.

    Factors mean what they mean in torchvision's `adjust_brightness`, `adjust_contrast` and `adjust_saturation`. Hue
    turns the chroma plane of YIQ, a linear map that keeps the luma; torchvision's `adjust_hue` turns the angle of HSV.

    Args:
        pixels: float32, shape (N, C, H, W); changed in place.
        brightness: N factors.
        contrast: N factors, blending with the image's mean grey.
        saturation: N factors, blending with each pixel's grey.
        hue: N turns, as fractions of the full circle.
        white: The largest value; results are clipped to [0, white].

    Returns:
        The same tensor.
    """
    light = np.ones(len(pixels)) if brightness is None else brightness
    spread = np.ones(len(pixels)) if contrast is None else contrast
    # What is added to all channels alike: the mean grey for contrast, the pixel's own grey for saturation.
    veil = None
    luma = None if contrast is None and saturation is None else _luma(pixels)
    if contrast is not None and luma is not None:
        veil = _mean(luma) * _column((1 - spread) * light, pixels)
    if hue is not None:
        pixels.copy_(_mixed_channels(pixels, _chroma_matrices(saturation, hue), light * spread))
    elif saturation is not None and luma is not None:
        own = luma.mul_(_column((1 - saturation) * light * spread, pixels))
        veil = own if veil is None else own.add_(veil)
        pixels.mul_(_column(saturation * light * spread, pixels))
    else:
        pixels.mul_(_column(light * spread, pixels))
    if veil is not None:
        pixels.add_(veil)
    return pixels.clamp_(0.0, white)


def _column(values: Array, like: Tensor) -> Tensor:
    return torch.from_numpy(values.astype(np.float32)).to(like.device)[:, None, None, None]


def _luma(pixels: Tensor) -> Tensor:
    """Return the grey of each pixel, shape (N, 1, H, W)."""
    num = pixels.shape[1]
    weights = _GREY if num == 3 else np.full(num, 1 / num)
    grey = pixels[:, :1] * float(weights[0])
    for channel in range(1, num):
        grey += pixels[:, channel : channel + 1] * float(weights[channel])
    return grey


def _mean(planes: Tensor) -> Tensor:
    """Return the mean of each plane, shape (N, 1, 1, 1), summed by halving: torch's sum may split another batch
    otherwise.
    """
    sums = planes.flatten(1)
    while (length := sums.shape[1]) > 1:
        half = length // 2
        folded = sums[:, :half] + sums[:, half : 2 * half]
        if length % 2:
            folded[:, 0] += sums[:, -1]
        sums = folded
    return (sums / (planes.shape[2] * planes.shape[3]))[:, :, None, None]


def _chroma_matrices(saturation: Array | None, hue: Array) -> Array:
    turn = np.broadcast_to(np.eye(3), (len(hue), 3, 3)).copy()
    cos, sin = np.cos(2 * np.pi * hue), np.sin(2 * np.pi * hue)
    turn[:, 1, 1], turn[:, 1, 2], turn[:, 2, 1], turn[:, 2, 2] = cos, -sin, sin, cos
    matrices: Array = np.linalg.inv(_YIQ) @ turn @ _YIQ
    if saturation is not None:
        blend = saturation[:, None, None]
        matrices = matrices @ (blend * np.eye(3) + (1 - blend) * _GREY)
    return matrices


def _mixed_channels(pixels: Tensor, matrices: Array, scale: Array) -> Tensor:
    # Not a matrix product: its kernel, and so its last bits, would depend on the number of images.
    entries = (matrices * scale[:, None, None]).astype(np.float32)
    weights = torch.from_numpy(entries).to(pixels.device)[:, :, :, None, None]
    out = pixels[:, :1] * weights[:, :, 0]
    for channel in (1, 2):
        out += pixels[:, channel : channel + 1] * weights[:, :, channel]
    return out
