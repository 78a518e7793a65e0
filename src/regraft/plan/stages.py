"""Stages: what trains in each, for how long and how; and the plan that checks all of them at once."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal

from torch import nn

from regraft.data.augment import Augment
from regraft.errors import SettingsError
from regraft.models.program import split_program
from regraft.plan.freeze import freeze

__all__ = ["EarlyStopping", "Plan", "Plateau", "Stage", "make_plan"]

OPTIMIZERS = ("auto", "lbfgs", "adamw", "adam", "sgd")
SCHEDULES = ("constant", "cosine")


@dataclass(frozen=True)
class EarlyStopping:
    """End a stage when `monitor` has not improved by more than `min_delta` for `patience` epochs (as in Keras)."""

    monitor: str = "val_loss"
    patience: int = 3
    min_delta: float = 0.0


@dataclass(frozen=True)
class Plateau:
    """Multiply the learning rate by `factor` when `monitor` stands still for `patience` epochs (as in Keras)."""

    monitor: str = "val_loss"
    factor: float = 0.1
    patience: int = 10
    min_delta: float = 1e-4
    cooldown: int = 0
    min_lr: float = 0.0


@dataclass(frozen=True)
class Stage:
    """One stage of a training run.

    Attributes:
        name: Its name in the run, the report and `--stages`.
        train: Selectors of what trains; everything else is frozen.
        epochs: At most so many passes over the training images.
        optimizer: `adamw`, `adam`, `sgd` (Nesterov), `lbfgs` (solves a linear head on fixed features), or `auto`:
            lbfgs where a single linear layer trains on images that are not augmented, else adamw.
        lr: Learning rate of a full step; None takes the optimizer's usual one (1e-3; for sgd 1e-2).
        backbone_lr: Learning rate of pretrained layers, as a factor of `lr`.
        weight_decay: Decoupled for adamw; never on biases and norms.
        momentum: For sgd.
        schedule: `constant` or `cosine` (to zero over the stage).
        warmup_epochs: Epochs, or a fraction of one, over which the rate rises from zero.
        batch_size: Images a step; None takes the run's.
        augment: How training images are varied; None shows them as they are.
        label_smoothing: Share of the target spread over all classes.
        clip_norm: Largest norm of the gradient; None does not clip.
        early_stopping: When to end before `epochs`; None never.
        plateau: When to lower the rate; None never.
        bn: Batch-norm policy of what trains: `train`, `affine-only`, `frozen`; None is right for each layer.
        start: Begin from the `best` or the `last` state of the stage before.
    """

    name: str
    train: str | Sequence[str] = "head"
    epochs: int = 10
    optimizer: str = "auto"
    lr: float | None = None
    backbone_lr: float = 1.0
    weight_decay: float = 0.0
    momentum: float = 0.9
    schedule: str = "constant"
    warmup_epochs: float = 0.0
    batch_size: int | None = None
    augment: Augment | None = None
    label_smoothing: float = 0.0
    clip_norm: float | None = None
    early_stopping: EarlyStopping | None = None
    plateau: Plateau | None = None
    bn: str | None = None
    start: Literal["best", "last"] = "best"

    def __post_init__(self) -> None:
        mistakes = _mistakes(self)
        if mistakes:
            raise SettingsError(
                f"The stage {self.name!r} cannot be carried out as described.",
                "Each setting has its own range.",
                "Correct these settings of the stage.",
                details=mistakes,
            )

    @property
    def selectors(self) -> tuple[str, ...]:
        return (self.train,) if isinstance(self.train, str) else tuple(self.train)

    @property
    def learning_rate(self) -> float:
        return self.lr if self.lr is not None else {"sgd": 1e-2}.get(self.optimizer, 1e-3)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "train": list(self.selectors)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Stage:
        """Build a stage from plain data, as recipes and runs store it."""
        values = dict(values)
        for key, kind in (("augment", Augment), ("early_stopping", EarlyStopping), ("plateau", Plateau)):
            if isinstance(values.get(key), Mapping):
                values[key] = kind(**values[key])
        return cls(**values)


def _mistakes(stage: Stage) -> list[str]:
    rules = {
        "epochs": (stage.epochs >= 1, "at least 1"),
        "optimizer": (stage.optimizer in OPTIMIZERS, "one of: " + ", ".join(OPTIMIZERS)),
        "lr": (stage.lr is None or stage.lr > 0, "more than 0"),
        "backbone_lr": (stage.backbone_lr > 0, "more than 0"),
        "weight_decay": (stage.weight_decay >= 0, "at least 0"),
        "momentum": (0 <= stage.momentum < 1, "at least 0 and less than 1"),
        "schedule": (stage.schedule in SCHEDULES, "one of: " + ", ".join(SCHEDULES)),
        "warmup_epochs": (stage.warmup_epochs >= 0, "at least 0"),
        "batch_size": (stage.batch_size is None or stage.batch_size >= 1, "at least 1"),
        "label_smoothing": (0 <= stage.label_smoothing < 1, "at least 0 and less than 1"),
        "clip_norm": (stage.clip_norm is None or stage.clip_norm > 0, "more than 0"),
        "start": (stage.start in ("best", "last"), "best or last"),
    }
    return [
        f"{key} is {getattr(stage, key)!r}; expected {expected}"
        for key, (is_right, expected) in rules.items()
        if not is_right
    ]


@dataclass(frozen=True)
class Plan:
    """The stages of a run, checked against a model, with every `auto` resolved."""

    stages: tuple[Stage, ...]
    trainable: tuple[tuple[str, ...], ...] = field(repr=False, default=())

    def __iter__(self) -> Iterator[Stage]:
        return iter(self.stages)

    def __len__(self) -> int:
        return len(self.stages)

    def settings(self) -> dict[str, Any]:
        return {"stages": [stage.to_dict() for stage in self.stages]}


def make_plan(model: nn.Module, stages: Sequence[Stage]) -> Plan:
    """Check every stage against the model, all at once, and resolve what they leave open. Trains nothing.

    Raises:
        SettingsError: A selector that matches nothing, two stages of one name, a stage in which nothing trains.
    """
    if not stages:
        raise SettingsError("The plan has no stages.", "At least one stage is needed.", "Add a stage to the recipe.")
    names = [stage.name for stage in stages]
    mistakes = [f"two stages are called {name!r}" for name in sorted(set(names)) if names.count(name) > 1]
    resolved, trainable = [], []
    trial = copy.deepcopy(model)
    layers: set[str] = set()
    for stage in stages:
        try:
            frozen = freeze(trial, stage.selectors, bn=stage.bn, trained=layers)
        except SettingsError as error:
            mistakes.append(f"stage {stage.name!r}: {error}")
            continue
        try:
            resolved.append(_resolve(stage, trial))
        except SettingsError as error:
            mistakes.append(f"stage {stage.name!r}: {error}")
        trainable.append(frozen.trainable)
        layers |= set(frozen.layers)
    if mistakes:
        raise SettingsError(
            "The plan cannot be carried out.",
            "Each stage trains something, under a name of its own.",
            "Correct these stages of the recipe.",
            details=mistakes,
        )
    return Plan(tuple(resolved), tuple(trainable))


def _resolve(stage: Stage, frozen_model: nn.Module) -> Stage:
    if stage.optimizer not in ("auto", "lbfgs"):
        return stage
    solvable = stage.augment is None and split_program(frozen_model).is_linear is not None
    if stage.optimizer == "lbfgs" and not solvable:
        raise SettingsError(
            "The optimizer lbfgs solves one linear layer on images that are not augmented; this stage trains more, "
            "or augments.",
            "Expected `train: head` with a plain head and no `augment`, or another optimizer.",
            "Set `optimizer: adamw`.",
        )
    return replace(stage, optimizer="lbfgs" if solvable else "adamw")


def stage_fields() -> tuple[str, ...]:
    """The names of a stage's settings."""
    return tuple(item.name for item in fields(Stage))
