"""Affine warps of whole batches, one inverse matrix for each image, in Keras's conventions: bilinear, masks nearest."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from regraft.settings.augment import Fill

__all__ = ["Level", "affine_matrices", "levels", "warp", "warp_masks"]

Level = float | Sequence[float]  # one value for all channels, or one per channel
Array = npt.NDArray[np.float64]

_PADDING: dict[Fill, str] = {"nearest": "border", "reflect": "reflection", "constant": "zeros"}


def affine_matrices(
    size: tuple[int, int],
    *,
    rotation: Array | float = 0.0,
    shift_x: Array | float = 0.0,
    shift_y: Array | float = 0.0,
    shear: Array | float = 0.0,
    zoom_x: Array | float = 1.0,
    zoom_y: Array | float = 1.0,
) -> Array:
    """Return inverse maps of pixel positions, composed as Keras does: rotation · shift · shear · zoom about the centre.

    Keras (`apply_affine_transform`) turns an image that is not square about the mirrored point of its centre; here it
    is always the centre, which is the same for square images.

    Args:
        size: Height and width in pixels.
        rotation: Degrees.
        shift_x: Pixels along the width.
        shift_y: Pixels along the height.
        shear: Degrees.
        zoom_x: Factor along the width; above 1 shows more of the surroundings.
        zoom_y: Factor along the height.

    Returns:
        float64, shape (N, 2, 3): (x, y) of the output pixel, with 1, times this gives (x, y) in the input.
    """
    turn, tilt, x, y, zx, zy = np.broadcast_arrays(
        *(np.atleast_1d(np.asarray(v, dtype=np.float64)) for v in (rotation, shear, shift_x, shift_y, zoom_x, zoom_y))
    )
    cos, sin = np.cos(np.deg2rad(turn)), np.sin(np.deg2rad(turn))
    slant, squeeze = -np.sin(np.deg2rad(tilt)), np.cos(np.deg2rad(tilt))
    linear = np.empty((len(cos), 2, 2))
    linear[:, 0, 0], linear[:, 0, 1] = cos * zx, (cos * slant - sin * squeeze) * zy
    linear[:, 1, 0], linear[:, 1, 1] = sin * zx, (sin * slant + cos * squeeze) * zy
    moved = np.stack([cos * x - sin * y, sin * x + cos * y], axis=1)
    centre = (np.array([size[1], size[0]]) - 1) / 2
    offset = centre + moved - (linear[:, :, 0] * centre[0] + linear[:, :, 1] * centre[1])
    return np.concatenate([linear, offset[:, :, None]], axis=2)


def warp(
    images: Tensor,
    matrices: Array,
    *,
    fill: Fill = "nearest",
    constant: Level = 0.0,
    out_size: tuple[int, int] | None = None,
) -> Tensor:
    """Return each image seen through its inverse affine map, bilinear.

    `nearest` and `reflect` (half-sample symmetric) equal `scipy.ndimage.affine_transform(order=1)`; `constant` fades
    into the constant over one pixel, as torchvision does with zeros.

    Args:
        images: uint8 or float, shape (N, C, H, W).
        matrices: float64, shape (N, 2, 3), as `affine_matrices` gives them.
        fill: What lies beyond the border.
        constant: The colour for `fill="constant"`, one value or one per channel.
        out_size: Height and width of what is returned; default: those of the images.

    Returns:
        float32, shape (N, C, *out_size).
    """
    pixels = images.to(torch.float32, memory_format=torch.contiguous_format)
    size = (images.shape[2], images.shape[3])
    grid = _sampling_grid(matrices, size, out_size or size, images.device)
    colour = levels(constant, pixels) if fill == "constant" and np.any(constant) else None
    if colour is not None:
        pixels = pixels - colour
    out = F.grid_sample(pixels, grid, mode="bilinear", padding_mode=_PADDING[fill], align_corners=False)
    return out if colour is None else out.add_(colour)


def warp_masks(
    masks: Tensor,
    matrices: Array,
    *,
    fill: Fill = "nearest",
    ignored: int = 255,
    out_size: tuple[int, int] | None = None,
) -> Tensor:
    """Return each mask seen through its inverse affine map: the value of the nearest pixel, so that no value is made
    up.

    Args:
        masks: uint8, shape (N, H, W).
        matrices: float64, shape (N, 2, 3), as `affine_matrices` gives them.
        fill: What the images get beyond their border. Masks get the value `ignored` there, or are mirrored as well.
        ignored: The value of pixels that count for nothing.
        out_size: Height and width of what is returned; default: those of the masks.

    Returns:
        uint8, shape (N, *out_size).
    """
    values = masks[:, None].to(torch.float32)
    size = (masks.shape[1], masks.shape[2])
    grid = _sampling_grid(matrices, size, out_size or size, masks.device)
    if fill == "reflect":
        out = F.grid_sample(values, grid, mode="nearest", padding_mode="reflection", align_corners=False)
    else:
        out = F.grid_sample(values.sub_(ignored), grid, mode="nearest", padding_mode="zeros", align_corners=False)
        out.add_(ignored)
    return out[:, 0].to(torch.uint8)


def levels(constant: Level, like: Tensor) -> Tensor:
    """Return the constant as a tensor of shape (1, 1 or C, 1, 1), of the type and on the device of `like`."""
    return torch.as_tensor(constant, dtype=like.dtype, device=like.device).reshape(1, -1, 1, 1)


def _sampling_grid(matrices: Array, size: tuple[int, int], out_size: tuple[int, int], device: torch.device) -> Tensor:
    # grid_sample wants positions on [-1, 1] over the pixels' outer edges.
    sides = np.array([size[1], size[0]], dtype=np.float64)
    scaled = matrices * (2 / sides)[None, :, None]
    scaled[:, :, 2] += 1 / sides - 1
    across = scaled[:, :, :1] * np.arange(out_size[1]) + scaled[:, :, 2:]
    down = scaled[:, :, 1:2] * np.arange(out_size[0])
    parts = [torch.from_numpy(part.astype(np.float32)).to(device) for part in (across, down)]
    # x and y lie in planes of their own: faster to write, and faster for grid_sample to read, than pairs.
    return (parts[0][:, :, None] + parts[1][:, :, :, None]).permute(0, 2, 3, 1)
