"""The default recipe, and how it completes one without stages."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from regraft.settings.model import DEFAULT_MODEL

__all__ = ["default_recipe", "fill"]

_HEAD: dict[str, Any] = {"name": "head", "train": "head", "epochs": 10, "optimizer": "auto", "logit_adjustment": "auto"}
# All layers, the earlier ones at lower rates; the end of it is no worse than the head by validation.
_ALL: dict[str, Any] = {
    "name": "all",
    "train": "all",
    "optimizer": "adamw",
    "lr": "auto",
    "layer_decay": 0.8,
    "weight_decay": 0.02,
    "schedule": "cosine",
    "warmup_epochs": 0.5,
    "train_image_size": "auto",
    "label_smoothing": 0.1,
    "logit_adjustment": "auto",
    "ema": 0.99,
    "interpolate": True,
    "soup": True,
    "augment": {
        "flip": "horizontal",
        "rotation": 10,
        "zoom": 0.15,
        "shift": 0.05,
        "brightness": 0.15,
        "contrast": 0.15,
    },
}
_TRAINED_ON, _MOST_EPOCHS = 9_000, 10  # images in all epochs together
_USUAL_IMAGES = 2_000
# A decoder that is narrow enough for a CPU, as in recipes/camvid-unet-lite0.yaml.
_MASK_MODEL = {"name": "unet", "args": {"encoder": DEFAULT_MODEL, "filters": [96, 64, 48, 24], "convs": 1}}
_OF_PIXELS: dict[str, Any] = {
    "optimizer": "adamw",
    "lr": 2e-3,
    "weight_decay": 0.01,
    "clip_norm": 5.0,
    "loss": {"cross_entropy": 1, "dice": 1},
    "augment": {"flip": "horizontal", "zoom": 0.2, "shift": 0.1, "brightness": 0.2, "contrast": 0.2},
}
# The decoder on the frozen encoder, then all layers, those of the encoder at a third of the rate.
_MASK_STAGES: list[dict[str, Any]] = [
    {"name": "decoder", "train": "!encoder", "epochs": 2, **_OF_PIXELS},
    {
        "name": "all",
        "train": "all",
        "epochs": 16,
        **_OF_PIXELS,
        "backbone_lr": 0.35,
        "schedule": {"name": "one-cycle", "pct_start": 0.2},
        "ema": 0.99,
        "interpolate": True,
        "soup": True,
    },
]


def default_recipe(
    image_size: tuple[int, int] | None = None, *, num_images: int = _USUAL_IMAGES, has_budget: bool = False
) -> dict[str, Any]:
    """Return the recipe of a run without options, as plain data.

    Args:
        image_size: Height and width for images with masks; None: images with labels.
        num_images: To train on; the fewer there are, the more often each is seen.
        has_budget: Whether a budget says how long its last stage is, the head where it cannot be solved, and which
            network it is.
    """
    if image_size is None:
        epochs = max(1, min(_MOST_EPOCHS, round(_TRAINED_ON / max(num_images, 1))))
        stages = [_open_ended(_HEAD), _ALL] if has_budget else [_HEAD, {**_ALL, "epochs": epochs}]
        return {"model": {} if has_budget else {"name": DEFAULT_MODEL}, "stages": copy.deepcopy(stages)}
    stages = [_MASK_STAGES[0], _open_ended(_MASK_STAGES[1])]
    return {
        "model": {**copy.deepcopy(_MASK_MODEL), "image_size": list(image_size)},
        "data": {"batch_size": 8},
        "monitor": "val_miou",
        "stages": copy.deepcopy(stages if has_budget else _MASK_STAGES),
    }


def _open_ended(stage: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in stage.items() if key != "epochs"}


def fill(values: dict[str, Any], base: Mapping[str, Any]) -> None:
    """Complete a recipe without stages, in place; one with stages sets everything itself."""
    if "stages" in values:
        return
    model = values.get("model")
    has_network = isinstance(model, dict) and "name" in model
    _put_below(values, {key: value for key, value in base.items() if key != "model"})
    left = {key: value for key, value in base["model"].items() if not (has_network and key in ("name", "args"))}
    _put_below(values, {"model": left})


def _put_below(values: dict[str, Any], base: Mapping[str, Any]) -> None:
    for key, value in base.items():
        if isinstance(value, dict) and isinstance(values.get(key), dict):
            _put_below(values[key], value)
        elif key not in values:
            values[key] = copy.deepcopy(value)
