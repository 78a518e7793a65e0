"""Image sizes of stages: all are made from the largest, which is decoded once; the best stage has the last word."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from regraft.data.augment.augment import require_window_within
from regraft.errors import SettingsError
from regraft.models.describe.info import info_of, preprocessing_of
from regraft.plan.make import Plan
from regraft.settings.stage import Stage

__all__ = ["keep_room", "require_room", "size_of", "take_size"]

_FEWEST_PIXELS = 8  # fewer show no image, whatever a network makes of them
_SURE_PIXELS = 64  # that every network takes


def keep_room(model: nn.Module, plan: Plan) -> None:
    """Let the model's preprocessing decode at the largest size of the run and its stages, where there are several.

    Raises:
        SettingsError: The sizes are of different shapes, and the resize policy keeps the shape.
    """
    pixels = preprocessing_of(model).pixels
    own = (size for stage in plan for size in (stage.size, stage.train_size))
    sizes = {pixels.size, *(size for size in own if size is not None)}
    if pixels.stored is not None or len(sizes) == 1:
        return
    shapes = {round(height / width, 2) for height, width in sizes}
    if pixels.resize != "squash" and len(shapes) > 1:
        raise SettingsError(
            f"The stages have image sizes of different shapes: {', '.join(f'{h}x{w}' for h, w in sorted(sizes))}.",
            f"with `resize: {pixels.resize}` all sizes have the same ratio of height to width",
            "set `data.resize: squash`, or sizes of one shape",
        )
    _set_pixels(model, stored=(max(height for height, _ in sizes), max(width for _, width in sizes)))


def require_room(model: nn.Module, stages: Iterable[Stage]) -> None:
    """Refuse images that are too small for the network: one pass of zeros of that size tells.

    Args:
        model: The adapted model; it is not changed.
        stages: The stages, resolved.

    Raises:
        SettingsError: A side has fewer than 8 pixels, the network's maps have none left at its end, or a stage cuts
            windows that are larger than its images.
    """
    trial: nn.Module | None = None
    sizes: set[tuple[int, int]] = set()
    for stage in stages:
        trained_on = stage.train_size or stage.size or size_of(model)
        window = stage.augment.window_size if stage.augment else None
        if window is not None:
            require_window_within(window, trained_on)
        sizes |= {stage.size or size_of(model), trained_on, window or trained_on}
    for size in sorted(sizes):
        if min(size) < _FEWEST_PIXELS:
            raise _too_small(size, f"at least {_FEWEST_PIXELS} pixels a side")
        if min(size) >= _SURE_PIXELS:
            continue
        trial = trial or copy.deepcopy(model).cpu().float().eval()
        images = torch.zeros(2, preprocessing_of(model).num_channels, *size)
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                trial(images)
        except RuntimeError as error:
            reason = str(error).splitlines()[0][:200]
            raise _too_small(size, f"The network cannot compute them ({reason}).") from error
        except Exception:  # whatever else is wrong with it has nothing to do with the size
            continue


def _too_small(size: tuple[int, int], why: str) -> SettingsError:
    return SettingsError(
        f"Images of {size[0]}x{size[1]} pixels are too small for this network.",
        why,
        "a larger `--image-size`, or set `image_size` or `train_image_size` of the stage that has it",
    )


def size_of(model: nn.Module) -> tuple[int, int]:
    """Return height and width of the images of stages that do not say."""
    return preprocessing_of(model).pixels.size


def take_size(model: nn.Module, size: tuple[int, int] | None) -> None:
    """Set the image size to that of the stage that the weights come from: what predicts is what trained."""
    if size is not None:
        _set_pixels(model, size=size)


def _set_pixels(model: nn.Module, **changes: Any) -> None:
    before = preprocessing_of(model)
    info_of(model).preprocessing = replace(before, pixels=replace(before.pixels, **changes))
