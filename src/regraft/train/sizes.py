"""Image sizes of stages: all are made from the largest, which is decoded once; the best stage has the last word."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import nn

from regraft.data.preprocess import Preprocessing
from regraft.errors import SettingsError
from regraft.models.info import info_of
from regraft.plan.make import Plan

__all__ = ["keep_room", "size_of", "take_size"]


def keep_room(model: nn.Module, plan: Plan) -> None:
    """Let the model's preprocessing decode at the largest size of the run and its stages, where there are several.

    Raises:
        SettingsError: The sizes are of different shapes, and the resize policy keeps the shape.
    """
    pixels = _preprocessing(model).pixels
    sizes = {pixels.size, *(stage.size for stage in plan if stage.size is not None)}
    if pixels.stored is not None or len(sizes) == 1:
        return
    shapes = {round(height / width, 2) for height, width in sizes}
    if pixels.resize != "squash" and len(shapes) > 1:
        raise SettingsError(
            f"The stages have image sizes of different shapes: {', '.join(f'{h}x{w}' for h, w in sorted(sizes))}.",
            f"With `resize: {pixels.resize}` all sizes have the same ratio of height to width.",
            "Set `data.resize: squash`, or sizes of one shape.",
        )
    _set_pixels(model, stored=(max(height for height, _ in sizes), max(width for _, width in sizes)))


def size_of(model: nn.Module) -> tuple[int, int]:
    """Height and width of the images of stages that do not say."""
    return _preprocessing(model).pixels.size


def take_size(model: nn.Module, size: tuple[int, int] | None) -> None:
    """What predicts is what trained: images of the size of the stage that the weights come from."""
    if size is not None:
        _set_pixels(model, size=size)


def _set_pixels(model: nn.Module, **changes: Any) -> None:
    before = _preprocessing(model)
    info_of(model).preprocessing = replace(before, pixels=replace(before.pixels, **changes)).to_dict()


def _preprocessing(model: nn.Module) -> Preprocessing:
    return Preprocessing.from_dict(info_of(model).preprocessing or {})
