"""Random changes of training images, as a function of seed, epoch and sample: the same bits in any batch.

All geometry of a sample (flip, rotation, shift, shear, zoom, crop, window) is one affine matrix and one interpolation;
all colour is one affine map of the channels; erasing comes last. Geometry follows the conventions of Keras's
`apply_affine_transform` (order: rotation, shift, shear, zoom, about the image centre), colour those of torchvision's
`ColorJitter`. The numbers come from `regraft.data.random`, so nothing has to be saved to repeat them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import overload

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from regraft.data.augment.colour import recolour_
from regraft.data.augment.warp import Level, affine_matrices, levels, warp, warp_masks
from regraft.data.class_table import IGNORED
from regraft.data.random import uniform
from regraft.errors import SettingsError
from regraft.settings.augment import Augment
from regraft.wording import quantity

__all__ = ["apply", "require_window_within"]

Array = npt.NDArray[np.float64]
SampleIds = Sequence[int] | npt.NDArray[np.integer]

_STREAM = 0x6175676D656E74  # keeps these numbers apart from others drawn with the same seed and epoch
# One column for each number a sample may need, so that switching one change on leaves all others as they were.
_COLUMNS = (
    *("rotation", "shift_x", "shift_y", "shear", "zoom_x", "zoom_y", "flip_x", "flip_y"),
    *("crop_area", "crop_ratio", "crop_x", "crop_y"),
    *("brightness", "contrast", "saturation", "hue"),
    *("erase", "erase_area", "erase_ratio", "erase_x", "erase_y"),
    *("window_x", "window_y"),
)
_CROP_RATIOS = (3 / 4, 4 / 3)  # as torchvision's RandomResizedCrop
_ERASE_AREAS, _ERASE_RATIOS = (0.02, 0.33), (0.3, 3.3)  # as torchvision's RandomErasing (Zhong et al., 2017)
_CHUNK_BYTES = 2_500_000  # of float32 pixels: what stays in a processor's cache between the passes


@overload
def apply(
    images: Tensor,
    augment: Augment,
    *,
    seed: int,
    epoch: int,
    sample_ids: SampleIds,
    constant: Level = 0.0,
    white: float = 255.0,
    masks: None = None,
) -> Tensor: ...


@overload
def apply(
    images: Tensor,
    augment: Augment,
    *,
    seed: int,
    epoch: int,
    sample_ids: SampleIds,
    constant: Level = 0.0,
    white: float = 255.0,
    masks: Tensor,
) -> tuple[Tensor, Tensor]: ...


def apply(
    images: Tensor,
    augment: Augment,
    *,
    seed: int,
    epoch: int,
    sample_ids: SampleIds,
    constant: Level = 0.0,
    white: float = 255.0,
    masks: Tensor | None = None,
) -> Tensor | tuple[Tensor, Tensor]:
    """Return the images, each changed as its own seed, epoch and sample number say; their masks move with them.

    Args:
        images: uint8 or float, shape (N, C, H, W), any memory layout, on any device.
        augment: What may change, and how much.
        seed: The run's seed.
        epoch: The epoch, or the number of the view.
        sample_ids: N numbers that name the samples in the data set.
        constant: Colour beyond the border for `fill="constant"` and in erased rectangles: one value or one per channel.
        white: The value of full brightness on the images' own scale; colours are clipped to [0, white].
        masks: uint8, shape (N, H, W): class positions, and 255 for pixels that are ignored. They take part in the
            geometry alone, by the nearest pixel; what comes from beyond the border or is erased becomes 255
            (`fill="reflect"` mirrors the mask as well).

    Returns:
        float32, shape (N, C, H, W), or (N, C, *window) where a window is cut out, contiguous, on the same scale: each
        sample's bits do not depend on its batch. With masks, (images, masks), the latter uint8 of the same size.

    Raises:
        SettingsError: When sample numbers, masks and images differ in number or size, saturation or hue meet other
            than 3 channels, or the window is larger than the images.
    """
    ids = np.asarray(sample_ids, dtype=np.int64)
    _check_batch(images, augment, ids, masks)
    drawn = dict(zip(_COLUMNS, uniform(seed, _STREAM, epoch, ids, num=len(_COLUMNS)).T, strict=True))
    num, channels, height, width = images.shape
    size = augment.window_size or (height, width)
    matrices = _drawn_matrices(augment, drawn, (height, width)) if augment.warps else None
    factors = _drawn_factors(augment, drawn)
    boxes = _drawn_boxes(augment, drawn, size) if augment.erase else None
    out = torch.empty((num, channels, *size), dtype=torch.float32, device=images.device)
    moved = None if masks is None else torch.empty((num, *size), dtype=torch.uint8, device=masks.device)
    step = _chunk_size(images)
    for rows in (slice(start, start + step) for start in range(0, num, step)):
        if matrices is not None:
            changed = warp(images[rows], matrices[rows], fill=augment.fill, constant=constant, out_size=size)
        else:
            changed = images[rows].to(torch.float32, memory_format=torch.contiguous_format, copy=True)
            _flip_(changed, augment, drawn, rows)
        if factors:
            recolour_(changed, **{name: values[rows] for name, values in factors.items()}, white=white)
        out[rows] = changed
        if masks is not None and moved is not None:
            moved[rows] = (
                warp_masks(masks[rows], matrices[rows], fill=augment.fill, out_size=size)
                if matrices is not None
                else _flip_(masks[rows].clone(), augment, drawn, rows)
            )
    if boxes is not None:
        _erase_(out, boxes, levels(constant, out)[0])
    if moved is None:
        return out
    if boxes is not None:
        _erase_(moved[:, None], boxes, torch.tensor(IGNORED, dtype=torch.uint8, device=moved.device))
    return out, moved


def require_window_within(window: tuple[int, int], size: tuple[int, int]) -> None:
    """Refuse a window (height, width) that is larger than the images it is cut out of.

    Raises:
        SettingsError: It is.
    """
    if window[0] > size[0] or window[1] > size[1]:
        raise SettingsError(
            f"A window of {window[0]}x{window[1]} pixels is to be cut out of images of {size[0]}x{size[1]}.",
            "a window no larger than the images that are trained on",
            "a smaller `augment.window`, or a larger image size",
        )


def _check_batch(images: Tensor, augment: Augment, ids: npt.NDArray[np.int64], masks: Tensor | None) -> None:
    if images.ndim != 4 or ids.shape != (images.shape[0],):
        raise SettingsError(
            f"A batch of shape {tuple(images.shape)} came with {quantity(ids.size, 'sample number')}.",
            "images have the shape (N, C, H, W), with one sample number for each of the N",
            "pass the numbers of exactly these samples",
        )
    if masks is not None and (masks.dtype != torch.uint8 or masks.shape != (images.shape[0], *images.shape[2:])):
        raise SettingsError(
            f"Images of shape {tuple(images.shape)} came with masks of shape {tuple(masks.shape)}, {masks.dtype}.",
            "masks have the shape (N, H, W) and the type uint8",
            "pass the masks of exactly these images, at their size",
        )
    if images.shape[1] != 3 and (augment.saturation or augment.hue):
        raise SettingsError(
            f"Saturation or hue is to change in images with {quantity(images.shape[1], 'channel')}.",
            "both need three channels: red, green, blue",
            "set saturation and hue to 0",
        )
    if augment.window_size is not None:
        require_window_within(augment.window_size, (images.shape[2], images.shape[3]))


def _chunk_size(images: Tensor) -> int:
    per_image = max(1, images[0].numel() if len(images) else 1) * 4
    # grid_sample switches to another kernel, with other roundings, above 2**31 elements.
    budget = _CHUNK_BYTES if images.device.type == "cpu" else 2**31
    return max(1, budget // per_image)


def _spread(drawn: Array, most: float) -> Array:
    return (drawn * 2 - 1) * most


def _drawn_matrices(augment: Augment, drawn: dict[str, Array], size: tuple[int, int]) -> Array:
    matrices = affine_matrices(
        size,
        rotation=_spread(drawn["rotation"], augment.rotation),
        shift_x=_spread(drawn["shift_x"], augment.shifts[1] * size[1]),
        shift_y=_spread(drawn["shift_y"], augment.shifts[0] * size[0]),
        shear=_spread(drawn["shear"], augment.shear),
        zoom_x=1 + _spread(drawn["zoom_x"], augment.zoom),
        zoom_y=1 + _spread(drawn["zoom_y"], augment.zoom),
    )
    for axis, name in enumerate(("flip_x", "flip_y")):
        chosen = _flips(augment, drawn)[name]
        # The output position is mirrored first: M(side - 1 - p) = -M p + M (side - 1).
        matrices[chosen, :, 2] += matrices[chosen, :, axis] * (size[1 - axis] - 1)
        matrices[chosen, :, axis] *= -1
    if augment.crop:
        matrices = _cropped(matrices, augment.crop, drawn, size)
    return matrices if augment.window_size is None else _windowed(matrices, augment.window_size, drawn, size)


def _cropped(matrices: Array, crop: tuple[float, float], drawn: dict[str, Array], size: tuple[int, int]) -> Array:
    area = crop[0] + drawn["crop_area"] * (crop[1] - crop[0])
    ratio = _log_spread(drawn["crop_ratio"], _CROP_RATIOS)
    for axis, (side, share) in enumerate(((size[1], np.sqrt(area * ratio)), (size[0], np.sqrt(area / ratio)))):
        kept = np.minimum(share, 1.0)
        start = drawn["crop_x" if axis == 0 else "crop_y"] * (1 - kept) * side
        matrices[:, axis] *= kept[:, None]
        matrices[:, axis, 2] += start + kept * 0.5 - 0.5
    return matrices


def _windowed(matrices: Array, window: tuple[int, int], drawn: dict[str, Array], size: tuple[int, int]) -> Array:
    # Whole pixels: where nothing else warps, the window holds the image's own pixels.
    start = np.stack(
        [
            np.floor(drawn[name] * (side - part + 1))
            for name, side, part in zip(("window_x", "window_y"), size[::-1], window[::-1], strict=True)
        ],
        axis=1,
    )
    matrices[:, :, 2] += np.einsum("nij,nj->ni", matrices[:, :, :2], start)
    return matrices


def _log_spread(drawn: Array, limits: tuple[float, float]) -> Array:
    low, high = math.log(limits[0]), math.log(limits[1])
    return np.exp(low + drawn * (high - low))


def _flips(augment: Augment, drawn: dict[str, Array]) -> dict[str, npt.NDArray[np.bool_]]:
    along = {"flip_x": ("horizontal", "both"), "flip_y": ("vertical", "both")}
    return {name: (drawn[name] < 0.5) & (augment.flip in kinds) for name, kinds in along.items()}


def _flip_(pixels: Tensor, augment: Augment, drawn: dict[str, Array], rows: slice) -> Tensor:
    """Mirror those images (N, C, H, W) or masks (N, H, W) that are drawn."""
    if augment.flip is None:
        return pixels
    for axis, name in ((-1, "flip_x"), (-2, "flip_y")):
        chosen = np.flatnonzero(_flips(augment, drawn)[name][rows])
        if len(chosen):
            where = torch.from_numpy(chosen).to(pixels.device)
            pixels[where] = pixels[where].flip(axis)
    return pixels


def _drawn_factors(augment: Augment, drawn: dict[str, Array]) -> dict[str, Array]:
    factors = {
        name: np.maximum(1 + _spread(drawn[name], getattr(augment, name)), 0.0)
        for name in ("brightness", "contrast", "saturation")
        if getattr(augment, name)
    }
    return factors | ({"hue": _spread(drawn["hue"], augment.hue)} if augment.hue else {})


def _drawn_boxes(augment: Augment, drawn: dict[str, Array], size: tuple[int, int]) -> npt.NDArray[np.int64]:
    area = (_ERASE_AREAS[0] + drawn["erase_area"] * (_ERASE_AREAS[1] - _ERASE_AREAS[0])) * size[0] * size[1]
    ratio = _log_spread(drawn["erase_ratio"], _ERASE_RATIOS)
    chosen = drawn["erase"] < augment.erase
    height = np.minimum(np.rint(np.sqrt(area * ratio)), size[0]) * chosen
    width = np.minimum(np.rint(np.sqrt(area / ratio)), size[1]) * chosen
    top = np.floor(drawn["erase_y"] * (size[0] - height + 1))
    left = np.floor(drawn["erase_x"] * (size[1] - width + 1))
    return np.stack([top, left, top + height, left + width], axis=1).astype(np.int64)


def _erase_(pixels: Tensor, boxes: npt.NDArray[np.int64], value: Tensor) -> None:
    """Fill the box of each image (N, C, H, W); boxes without area stay as they are."""
    for row in np.flatnonzero((boxes[:, 2] > boxes[:, 0]) & (boxes[:, 3] > boxes[:, 1])).tolist():
        top, left, bottom, right = boxes[row].tolist()
        pixels[row, :, top:bottom, left:right] = value
