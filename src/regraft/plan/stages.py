"""Stages: what trains in each, for how long and how. `plan.make` checks them against a model."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from regraft.data.augment import Augment
from regraft.errors import SettingsError
from regraft.plan.losses import loss_mistakes
from regraft.plan.optimizers import optimizer_mistake, usual_rate
from regraft.plan.rules import EarlyStopping, Plateau, Schedule

__all__ = ["DEFAULT_EPOCHS", "EarlyStopping", "Plateau", "Schedule", "Stage"]

DEFAULT_EPOCHS = 10
_NESTED: dict[str, Callable[..., Any]] = {
    "augment": Augment,
    "early_stopping": EarlyStopping,
    "plateau": Plateau,
    "schedule": Schedule,
}


@dataclass(frozen=True)
class Stage:
    """One stage of a training run.

    Attributes:
        name: Its name in the run, the report and `--stages`.
        train: Selectors of what trains; everything else is frozen.
        epochs: At most so many passes over the training images; None takes 10, or what `steps` says.
        steps: The stage's length in optimizer steps, in the place of `epochs`.
        optimizer: `adamw`, `adam`, `sgd` (Nesterov), `momentum` (plain), any other name of timm's, `lbfgs` (solves a
            linear head on fixed features), or `auto`: lbfgs where a single linear layer trains on images that do not
            vary, else adamw.
        optimizer_args: Further arguments of the optimizer, for example `{"betas": (0.9, 0.99)}`.
        lr: Learning rate of a full step; None takes the optimizer's usual one. Or rates by selector: the last
            selector that a layer is under counts, and each layer that trains is under one.
        backbone_lr: Learning rate of pretrained layers, as a factor of `lr`.
        layer_decay: Factor on the rate for each step of depth below the head, as in timm.
        weight_decay: Decoupled for adamw; not on biases and norms.
        decay_norm_and_bias: Whether weight decay is on biases and norms too.
        momentum: Of optimizers that have one; None takes 0.9.
        schedule: `constant`, `cosine`, `one-cycle`, or a `Schedule`.
        warmup_epochs: Epochs, or a fraction of one, over which the rate rises from zero.
        warmup_steps: The same in steps.
        batch_size: Images at a time; None takes the run's.
        accumulate: Batches whose gradients make one optimizer step.
        image_size: Side, or (height, width), in pixels; None takes the run's.
        precision: `fp32`, `bf16` or `fp16` in the place of the run's.
        augment: How training images are varied; None shows them as they are.
        mixup: Alpha of mixup (Zhang et al. 2017, arXiv:1710.09412); 0 mixes nothing.
        cutmix: Alpha of CutMix (Yun et al. 2019, arXiv:1905.04899); 0 mixes nothing. With both, each image gets one.
        loss: What is minimised in segmentation: `cross_entropy`, `dice`, `focal`, or a sum of them with factors, as
            `{"cross_entropy": 1, "dice": 1}`. Other outputs have the cross-entropy of their own.
        label_smoothing: Share of the target spread over all classes.
        class_weights: `balanced`, for masks also `median_frequency`, a weight for each class in order, or weights by
            class name (others have 1).
        sampling: `shuffled` shows each image once an epoch; `balanced` shows each class equally often.
        clip_norm: Largest norm of the gradient; None does not clip.
        ema: Decay of the moving average of the weights that is validated and kept; None keeps the weights themselves.
        early_stopping: When to end before the stage's length; None never.
        plateau: When to lower the rate; None never.
        bn: Batch-norm policy of what trains: `train`, `affine-only`, `frozen`; None is right for each layer.
        start: Begin from the `best` or the `last` state of the stage before.
    """

    name: str
    train: str | Sequence[str] = "head"
    epochs: int | None = None
    steps: int | None = None
    optimizer: str = "auto"
    optimizer_args: Mapping[str, Any] = field(default_factory=dict)
    lr: float | Mapping[str, float] | None = None
    backbone_lr: float = 1.0
    layer_decay: float | None = None
    weight_decay: float = 0.0
    decay_norm_and_bias: bool = False
    momentum: float | None = None
    schedule: str | Schedule = "constant"
    warmup_epochs: float = 0.0
    warmup_steps: int | None = None
    batch_size: int | None = None
    accumulate: int = 1
    image_size: int | tuple[int, int] | None = None
    precision: Literal["fp32", "bf16", "fp16"] | None = None
    augment: Augment | None = None
    mixup: float = 0.0
    cutmix: float = 0.0
    loss: str | Mapping[str, float] = "cross_entropy"
    label_smoothing: float = 0.0
    class_weights: str | Sequence[float] | Mapping[str, float] | None = None
    sampling: str = "shuffled"
    clip_norm: float | None = None
    ema: float | None = None
    early_stopping: EarlyStopping | None = None
    plateau: Plateau | None = None
    bn: str | None = None
    start: Literal["best", "last"] = "best"

    def __post_init__(self) -> None:
        if isinstance(self.schedule, str):
            object.__setattr__(self, "schedule", Schedule(self.schedule))
        if isinstance(self.image_size, list):  # as YAML gives it
            object.__setattr__(self, "image_size", tuple(self.image_size))
        mistakes = list(_mistakes(self))
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
    def rate_schedule(self) -> Schedule:
        """The schedule, whichever way it was given."""
        return self.schedule if isinstance(self.schedule, Schedule) else Schedule(self.schedule)

    @property
    def learning_rate(self) -> float:
        """The largest learning rate of a full step, before the schedule."""
        if isinstance(self.lr, Mapping):
            return max(self.lr.values())
        return self.lr if self.lr is not None else usual_rate(self.optimizer)

    @property
    def mixes(self) -> bool:
        """Whether images are mixed with one another."""
        return self.mixup > 0 or self.cutmix > 0

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width in pixels, where the stage has its own."""
        return (self.image_size, self.image_size) if isinstance(self.image_size, int) else self.image_size

    def to_dict(self) -> dict[str, Any]:
        """Plain data for recipes and runs; a schedule without further settings is its name."""
        schedule = {key: value for key, value in asdict(self.rate_schedule).items() if value is not None}
        return {
            **asdict(self),
            "train": list(self.selectors),
            "schedule": schedule["name"] if len(schedule) == 1 else schedule,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Stage:
        """Build a stage from plain data, as recipes and runs store it."""
        values = dict(values)
        for key, kind in _NESTED.items():
            if isinstance(values.get(key), Mapping):
                values[key] = kind(**values[key])
        return cls(**values)


def _mistakes(stage: Stage) -> Iterator[str]:
    rules: dict[str, tuple[bool, str]] = {
        "epochs": (_none_or(stage.epochs, lambda v: v >= 1), "at least 1"),
        "steps": (_none_or(stage.steps, lambda v: v >= 1), "at least 1"),
        "lr": (_all_positive(stage.lr), "more than 0"),
        "backbone_lr": (stage.backbone_lr > 0, "more than 0"),
        "layer_decay": (_none_or(stage.layer_decay, lambda v: 0 < v <= 1), "more than 0 and at most 1"),
        "weight_decay": (stage.weight_decay >= 0, "at least 0"),
        "momentum": (_none_or(stage.momentum, lambda v: 0 <= v < 1), "at least 0 and less than 1"),
        "warmup_epochs": (stage.warmup_epochs >= 0, "at least 0"),
        "warmup_steps": (_none_or(stage.warmup_steps, lambda v: v >= 0), "at least 0"),
        "batch_size": (_none_or(stage.batch_size, lambda v: v >= 1), "at least 1"),
        "accumulate": (stage.accumulate >= 1, "at least 1"),
        "image_size": (_none_or(stage.size, lambda v: len(v) == 2 and min(v) >= 1), "at least 1 pixel a side"),
        "precision": (stage.precision in (None, "fp32", "bf16", "fp16"), "fp32, bf16 or fp16"),
        "mixup": (stage.mixup >= 0, "at least 0"),
        "cutmix": (stage.cutmix >= 0, "at least 0"),
        "label_smoothing": (0 <= stage.label_smoothing < 1, "at least 0 and less than 1"),
        "class_weights": (_are_weights(stage.class_weights), "balanced, median_frequency, or numbers of at least 0"),
        "sampling": (stage.sampling in ("shuffled", "balanced"), "shuffled or balanced"),
        "clip_norm": (_none_or(stage.clip_norm, lambda v: v > 0), "more than 0"),
        "ema": (_none_or(stage.ema, lambda v: 0 < v < 1), "more than 0 and less than 1"),
        "start": (stage.start in ("best", "last"), "best or last"),
    }
    for key, (is_right, expected) in rules.items():
        if not is_right:
            yield f"{key} is {getattr(stage, key)!r}; expected {expected}"
    yield from loss_mistakes(stage.loss)
    if (mistake := optimizer_mistake(stage.optimizer)) is not None:
        yield mistake
    for rule in (stage.rate_schedule, stage.early_stopping, stage.plateau):
        if rule is not None:
            yield from rule.mistakes()
    yield from _contradictions(stage)


def _contradictions(stage: Stage) -> Iterator[str]:
    if stage.epochs is not None and stage.steps is not None:
        yield "epochs and steps are both given; a stage has one length"
    if stage.warmup_epochs and stage.warmup_steps:
        yield "warmup_epochs and warmup_steps are both given; a stage warms up once"
    if stage.rate_schedule.name == "one-cycle" and (stage.warmup_epochs or stage.warmup_steps):
        yield "a one-cycle schedule warms up by itself; leave warmup_epochs and warmup_steps out"
    if isinstance(stage.lr, Mapping) and stage.backbone_lr != 1:
        yield "backbone_lr is a factor on a single `lr`; with rates by selector, write the rate of `backbone`"
    if stage.rate_schedule.min_lr is not None and stage.rate_schedule.min_lr > stage.learning_rate:
        yield "schedule.min_lr is above the learning rate"
    if stage.mixes and stage.optimizer == "lbfgs":
        yield "lbfgs solves on images that do not vary; mixup and cutmix need another optimizer"


def _none_or(value: Any, rule: Callable[[Any], bool]) -> bool:
    return value is None or rule(value)


def _all_positive(lr: float | Mapping[str, float] | None) -> bool:
    rates = [1.0] if lr is None else list(lr.values()) if isinstance(lr, Mapping) else [lr]
    return bool(rates) and all(rate > 0 for rate in rates)


def _are_weights(weights: str | Sequence[float] | Mapping[str, float] | None) -> bool:
    if weights is None or isinstance(weights, str):
        return weights in (None, "balanced", "median_frequency")
    numbers = list(weights.values()) if isinstance(weights, Mapping) else list(weights)
    return bool(numbers) and all(number >= 0 and math.isfinite(number) for number in numbers) and max(numbers) > 0
