"""The settings of a stage, as a recipe has them."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["DEFAULT_STAGES", "AugmentSettings", "StageSettings", "Strict"]

# The head on the frozen network, then the last resolution stage of the network with it, gently.
DEFAULT_STAGES: list[dict[str, Any]] = [
    {"name": "head", "train": "head", "epochs": 10, "optimizer": "auto"},
    {
        "name": "top",
        "train": ["stage:-1", "head"],
        "epochs": 3,
        "optimizer": "adamw",
        "lr": 1e-4,
        "weight_decay": 0.01,
        "schedule": "cosine",
        "warmup_epochs": 0.5,
        "augment": {"flip": "horizontal", "rotation": 8, "zoom": 0.1, "shift": 0.05},
        "early_stopping": {"monitor": "val_loss", "patience": 2},
    },
]


class Strict(BaseModel):
    model_config = ConfigDict(
        extra="forbid", str_strip_whitespace=True, coerce_numbers_to_str=True, allow_inf_nan=False
    )


class AugmentSettings(Strict):
    """How training images vary: degrees, fractions of the side, factors."""

    rotation: float = Field(0.0, ge=0, le=360)
    shift: float = Field(0.0, ge=0, le=1)
    shear: float = Field(0.0, ge=0, le=89)
    zoom: float = Field(0.0, ge=0, le=0.99)
    flip: Literal["horizontal", "vertical", "both"] | None = None
    crop: tuple[float, float] | None = None
    brightness: float = Field(0.0, ge=0, le=10)
    contrast: float = Field(0.0, ge=0, le=10)
    saturation: float = Field(0.0, ge=0, le=10)
    hue: float = Field(0.0, ge=0, le=0.5)
    erase: float = Field(0.0, ge=0, le=1)
    fill: Literal["nearest", "reflect", "constant"] = "nearest"


class EarlyStoppingSettings(Strict):
    """When a stage ends before its last epoch."""

    monitor: Literal["val_loss", "val_top1", "train_loss"] = "val_loss"
    patience: int = Field(3, ge=1)
    min_delta: float = Field(0.0, ge=0)


class PlateauSettings(Strict):
    """When the learning rate is lowered."""

    monitor: Literal["val_loss", "val_top1", "train_loss"] = "val_loss"
    factor: float = Field(0.1, gt=0, lt=1)
    patience: int = Field(10, ge=1)
    min_delta: float = Field(1e-4, ge=0)
    cooldown: int = Field(0, ge=0)
    min_lr: float = Field(0.0, ge=0)


class StageSettings(Strict):
    """One stage; keys not given come from `defaults`."""

    name: str = Field(min_length=1)
    train: str | list[str] = "head"
    epochs: int = Field(10, ge=1)
    optimizer: Literal["auto", "lbfgs", "adamw", "adam", "sgd"] = "auto"
    lr: float | None = Field(None, gt=0)
    backbone_lr: float = Field(1.0, gt=0)
    weight_decay: float = Field(0.0, ge=0)
    momentum: float = Field(0.9, ge=0, lt=1)
    schedule: Literal["constant", "cosine"] = "constant"
    warmup_epochs: float = Field(0.0, ge=0)
    batch_size: int | None = Field(None, ge=1)
    augment: AugmentSettings | None = None
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    clip_norm: float | None = Field(None, gt=0)
    early_stopping: EarlyStoppingSettings | None = None
    plateau: PlateauSettings | None = None
    bn: Literal["train", "affine-only", "frozen"] | None = None
    start: Literal["best", "last"] = "best"
