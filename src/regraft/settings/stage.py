"""Stages: what trains in each, for how long and how. `regraft.plan.make` checks them against a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from regraft.settings.augment import Augment
from regraft.settings.monitor import EarlyStopping, Plateau
from regraft.settings.optimizers import OPTIMIZERS, optimizer_mistake
from regraft.settings.schedule import Schedule
from regraft.settings.strict import (
    Count,
    DictOf,
    Factor,
    FactorBelowOne,
    ListOf,
    NotNegative,
    Pixels,
    Positive,
    ShareBelowOne,
    WholeNotNegative,
    refuse,
    settings,
)

__all__ = ["DEFAULT_EPOCHS", "EXCLUSIVE", "Stage"]

DEFAULT_EPOCHS = 10
EXCLUSIVE = (("epochs", "steps"), ("warmup_epochs", "warmup_steps"))  # a stage has one of each pair
Loss = Literal["cross_entropy", "ohem", "dice", "focal", "lovasz"]


def _known_optimizer(name: str) -> str:
    mistake = optimizer_mistake(name)
    if mistake is not None:
        raise ValueError(mistake)
    return name


def _with_some_weight(weights: Sequence[float]) -> Sequence[float]:
    if max(weights) <= 0:
        raise ValueError("must have a number above 0: with 0 for every class nothing would train")
    return weights


_ClassWeights = (
    Literal["balanced", "median_frequency"]
    | Annotated[ListOf[NotNegative], Field(min_length=1), AfterValidator(_with_some_weight)]
    | Annotated[DictOf[str, NotNegative], Field(min_length=1)]
)


@settings
class Stage:
    """One stage of a training run."""

    name: str = Field(min_length=1, description="its name in the run, the report and `--stages`")
    train: str | ListOf[str] = Field(default="head", description="selectors of what trains; all else is frozen")
    epochs: Count | None = Field(default=None, description="maximum passes over the training images; default 10")
    steps: Count | None = Field(default=None, description="the length in optimizer steps instead of epochs")
    optimizer: Annotated[str, AfterValidator(_known_optimizer)] = Field(
        default="auto",
        description="adamw, adam, sgd (Nesterov), momentum (plain), any other of timm's, lbfgs (fits a linear head on "
        "fixed features), or auto: lbfgs where it can, else adamw",
        json_schema_extra={"enum": list(OPTIMIZERS)},
    )
    optimizer_args: DictOf[str, Any] = Field(
        default_factory=dict, description="further arguments of the optimizer, as {betas: [0.9, 0.99]}"
    )
    lr: Positive | Literal["auto"] | Annotated[DictOf[str, Positive], Field(min_length=1)] | None = Field(
        default=None,
        description="learning rate of a full step; null: the optimizer's default; auto: lower without norms. "
        "Or rates by selector, as {all: 1e-5, head: 1e-3}: the last selector that matches a layer counts",
    )
    backbone_lr: Positive = Field(default=1.0, description="learning rate of pretrained layers, as a factor of lr")
    layer_decay: Factor | None = Field(
        default=None, description="factor on the rate for each step of depth below the head, as in timm"
    )
    weight_decay: NotNegative = Field(default=0.0, description="weight decay, not on biases and norms")
    decay_norm_and_bias: bool = Field(default=False, description="weight decay on biases and norms too")
    momentum: ShareBelowOne | None = Field(
        default=None, description="momentum of optimizers that have one; default 0.9"
    )
    schedule: Literal["constant", "cosine", "one-cycle"] | Schedule = Field(
        default="constant", description="how the rate changes over the stage; a name, or a mapping with its settings"
    )
    warmup_epochs: NotNegative = Field(
        default=0.0, description="epochs, or a fraction of one, over which the rate rises from zero"
    )
    warmup_steps: WholeNotNegative | None = Field(default=None, description="the same in steps")
    batch_size: Count | None = Field(default=None, description="images per batch; null: data.batch_size")
    accumulate: Count = Field(default=1, description="batches whose gradients make one optimizer step")
    image_size: Pixels | tuple[Pixels, Pixels] | None = Field(
        default=None, description="side, or [height, width], in pixels; null: model.image_size"
    )
    train_image_size: Pixels | tuple[Pixels, Pixels] | Literal["auto"] | None = Field(
        default=None,
        description="side, or [height, width], of the images that are trained on, where validation and the model take "
        "larger ones (arXiv:1906.06423); auto: 6/7 of them, where the network can; null: image_size",
    )
    precision: Literal["fp32", "bf16", "fp16"] | None = Field(
        default=None, description="precision of this stage; null: numerics.precision"
    )
    augment: Augment | None = Field(default=None, description="how training images vary; null: not at all")
    mixup: NotNegative = Field(
        default=0.0, description="alpha of mixup, which blends images and targets (arXiv:1710.09412); 0: off"
    )
    cutmix: NotNegative = Field(
        default=0.0,
        description="alpha of CutMix, which pastes a box of one image into another (arXiv:1905.04899); 0: off. With "
        "both, each image gets one of them",
    )
    loss: Loss | Annotated[DictOf[Loss, Positive], Field(min_length=1)] = Field(
        default="cross_entropy",
        description="loss of segmentation: cross_entropy, ohem (cross-entropy of hard pixels), dice, focal, lovasz, or "
        "a sum with factors, as {cross_entropy: 1, dice: 1}",
    )
    label_smoothing: ShareBelowOne = Field(default=0.0, description="fraction of the target spread over all classes")
    class_weights: _ClassWeights | None = Field(
        default=None,
        description="class weights in the loss: balanced, median_frequency (of pixels), one for each class in order, "
        "or by class name, or by number from 0 as in Keras (others have 1)",
    )
    logit_adjustment: NotNegative | Literal["auto"] = Field(
        default=0.0,
        description="factor on the logarithms of the classes' shares of the training images, which the loss adds to "
        "the logits, so that the network says what is likely where all classes are equally frequent "
        "(arXiv:2007.07314); auto: 1 where the largest class has 20 times the images of the smallest, else 0",
    )
    sampling: Literal["shuffled", "balanced"] = Field(
        default="shuffled", description="each image once per epoch, or each class equally often"
    )
    clip_norm: Positive | None = Field(default=None, description="maximum gradient norm; null: no clipping")
    ema: FactorBelowOne | None = Field(
        default=None,
        description="decay of the moving average of the weights that is validated and kept, as 0.999; null: no average",
    )
    interpolate: bool = Field(
        default=False,
        description="at the end, keep the best of networks between the stage's start and its end (arXiv:2109.01903)",
    )
    soup: bool = Field(
        default=False,
        description="at the end, average the weights of late epochs as far as that is better (arXiv:2203.05482)",
    )
    early_stopping: EarlyStopping | None = Field(default=None, description="when the stage ends early; null: never")
    plateau: Plateau | None = Field(default=None, description="when the learning rate is lowered; null: never")
    bn: Literal["train", "affine-only", "frozen"] | None = Field(
        default=None, description="batch norm in what trains; null: the right policy for each layer"
    )
    start: Literal["best", "last"] = Field(
        default="best", description="start from the best or the last state of the previous stage"
    )

    @field_validator("schedule", mode="before")
    @classmethod
    def _whole(cls, schedule: Any) -> Any:
        if schedule == "step":
            raise ValueError("step needs `every` or `milestones`, as {name: step, every: 5}")
        return schedule

    @field_validator("schedule")
    @classmethod
    def _short(cls, schedule: Any) -> Any:
        return schedule.name if isinstance(schedule, Schedule) and schedule.is_plain else schedule

    @model_validator(mode="after")
    def _consistent(self) -> Stage:
        refuse(_contradictions(self))
        return self

    @property
    def selectors(self) -> tuple[str, ...]:
        """What trains, as a tuple of selectors."""
        return (self.train,) if isinstance(self.train, str) else tuple(self.train)

    @property
    def rate_schedule(self) -> Schedule:
        """The schedule, whichever way it was given."""
        return self.schedule if isinstance(self.schedule, Schedule) else Schedule(self.schedule)

    @property
    def mixes(self) -> bool:
        """Whether images are mixed with one another."""
        return self.mixup > 0 or self.cutmix > 0

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width in pixels, where the stage has its own."""
        return _height_and_width(self.image_size)

    @property
    def train_size(self) -> tuple[int, int] | None:
        """Height and width of the images that are trained on, where the stage has its own."""
        return None if self.train_image_size == "auto" else _height_and_width(self.train_image_size) or self.size

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for recipes and runs; a schedule without further settings is its name."""
        values: dict[str, Any] = {**asdict(self), "train": list(self.selectors)}
        if isinstance(self.schedule, Schedule):
            values["schedule"] = {key: value for key, value in values["schedule"].items() if value is not None}
        return values


def _height_and_width(size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    return (size, size) if isinstance(size, int) else size


def _contradictions(stage: Stage) -> Iterator[str]:
    if stage.epochs is not None and stage.steps is not None:
        yield "epochs and steps are both given; a stage has one length"
    if stage.warmup_epochs and stage.warmup_steps:
        yield "warmup_epochs and warmup_steps are both given; a stage warms up once"
    if stage.rate_schedule.name == "one-cycle" and (stage.warmup_epochs or stage.warmup_steps):
        yield "a one-cycle schedule has its own warm-up; leave warmup_epochs and warmup_steps out"
    if isinstance(stage.lr, Mapping) and stage.backbone_lr != 1:
        yield "backbone_lr is a factor on a single `lr`; with rates by selector, write the rate of `backbone`"
    if stage.mixes and stage.optimizer == "lbfgs":
        yield "lbfgs needs images that do not vary; mixup and cutmix need another optimizer"
    if stage.interpolate and stage.optimizer == "lbfgs":
        yield "interpolate needs weights that training moved; lbfgs solves for them"
    if stage.soup and stage.optimizer == "lbfgs":
        yield "soup averages the weights of epochs; lbfgs has none"
