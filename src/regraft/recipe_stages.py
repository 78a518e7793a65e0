"""The settings of a stage, as a recipe has them."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from regraft.errors import nearest

__all__ = ["EXCLUSIVE", "OPTIMIZERS", "AugmentSettings", "Monitor", "StageSettings", "Strict"]

# Of each pair a stage has one; its own goes before one that comes from `defaults`.
EXCLUSIVE = (("epochs", "steps"), ("warmup_epochs", "warmup_steps"))

# Those of timm 1.0.31 whose state can be saved; `plan.optimizers` knows those of the timm that is installed.
OPTIMIZERS = (
    *("auto", "lbfgs", "adabelief", "adadelta", "adafactor", "adafactorbv", "adafactorbvc", "adagrad", "adam"),
    *("adamax", "adamc", "adamp", "adamuon", "adamw", "adamwlegacy", "adan", "adanw", "adopt", "adoptc", "adoptw"),
    *("cadafactor", "cadafactorbv", "cadafactorbvc", "cadamc", "cadamp", "cadamw", "cadan", "cadanw", "cadopt"),
    *("cadoptc", "cadoptw", "clamb", "clambw", "claprop", "clion", "clionc", "cmars", "cnadamc", "cnadamw"),
    *("crmsproptf", "csgdc", "csgdp", "csgdw", "lamb", "lambc", "lambcd", "lambcw", "lambw", "laprop", "lapropc"),
    *("larc", "lars", "lion", "lionc", "madgrad", "madgradw", "mars", "momentum", "muon", "nadam", "nadamc"),
    *("nadamlegacy", "nadamuon", "nadamw", "nesterov", "nesterovw", "nlarc", "nlars", "nmuon", "novograd"),
    *("novogradc", "novogradw", "radabelief", "radam", "radamlegacy", "radamw", "rmsprop", "rmsproptf", "rmsproptfc"),
    *("rmsproptfw", "sgd", "sgdc", "sgdp", "sgdw"),
)

Positive = Annotated[float, Field(gt=0)]
Pixels = Annotated[int, Field(ge=1)]
Share = Annotated[float, Field(ge=0, le=1)]
Mode = Literal["min", "max"]


def _is_measure(name: str) -> str:
    """Which of them an epoch gives depends on the head's output, which a recipe alone does not know."""
    if name != "train_loss" and not re.fullmatch(r"val_[a-z0-9_]+", name):
        raise ValueError("must be a measure of an epoch, such as val_loss, val_top1, val_auc, val_map or train_loss")
    return name


Monitor = Annotated[str, AfterValidator(_is_measure)]


class Strict(BaseModel):
    model_config = ConfigDict(
        extra="forbid", str_strip_whitespace=True, coerce_numbers_to_str=True, allow_inf_nan=False
    )


class AugmentSettings(Strict):
    """How training images vary: degrees, fractions of the side, factors."""

    rotation: float = Field(0.0, ge=0, le=360, description="largest angle in degrees, either way")
    shift: Share | tuple[Share, Share] = Field(
        0.0, description="largest shift along both sides, as a fraction of the side; or [vertical, horizontal]"
    )
    shear: float = Field(0.0, ge=0, le=89, description="largest shear angle in degrees")
    zoom: float = Field(0.0, ge=0, le=0.99, description="z: an independent factor in [1 - z, 1 + z] for each side")
    flip: Literal["horizontal", "vertical", "both"] | None = Field(None, description="mirrors every second image")
    crop: tuple[float, float] | None = Field(
        None, description="smallest and largest share of the area that is cut out and enlarged, as [0.35, 1.0]"
    )
    brightness: float = Field(0.0, ge=0, le=10, description="b: a factor in [1 - b, 1 + b]")
    contrast: float = Field(0.0, ge=0, le=10, description="c: a blend with the image's mean grey in [1 - c, 1 + c]")
    saturation: float = Field(0.0, ge=0, le=10, description="s: a blend with each pixel's grey in [1 - s, 1 + s]")
    hue: float = Field(0.0, ge=0, le=0.5, description="largest turn of the hue, as a fraction of the circle")
    erase: float = Field(0.0, ge=0, le=1, description="probability that a rectangle is erased")
    fill: Literal["nearest", "reflect", "constant"] = Field(
        "nearest", description="what lies beyond the border: the nearest pixel, the image mirrored, or a constant"
    )


class ScheduleSettings(Strict):
    """How the learning rate goes over a stage; counts are epochs, or steps in a stage that is given in steps."""

    name: Literal["constant", "step", "cosine", "one-cycle"] = Field(description="which schedule")
    every: int | None = Field(None, ge=1, description="step: a milestone at every so many")
    milestones: list[Annotated[int, Field(ge=1)]] | None = Field(
        None, min_length=1, description="step: when the rate is multiplied by gamma"
    )
    gamma: float | None = Field(None, gt=0, le=1, description="step: the factor; 0.1")
    min_lr: float | None = Field(None, ge=0, description="cosine: the rate at the end; 0")
    pct_start: float | None = Field(None, ge=0, le=1, description="one-cycle: the share in which the rate rises; 0.3")
    div_factor: float | None = Field(None, ge=1, description="one-cycle: it begins at this part of the peak; 25")
    final_div_factor: float | None = Field(
        None, ge=1, description="one-cycle: it ends at this part of where it began; 10000"
    )
    cycle_momentum: bool | None = Field(None, description="one-cycle: momentum goes from 0.95 to 0.85 and back; true")


class EarlyStoppingSettings(Strict):
    """When a stage ends before its last epoch; decides as Keras's EarlyStopping."""

    monitor: Monitor = Field("val_loss", description="the measure to watch, as in metrics.jsonl")
    mode: Mode | None = Field(None, description="`min` or `max`; known from the measure's name")
    patience: int = Field(3, ge=0, description="epochs without improvement that end the stage")
    min_delta: float = Field(0.0, ge=0, description="an improvement is a change by more than this")
    start_from_epoch: int = Field(0, ge=0, description="epochs at the start that are not looked at")
    baseline: float | None = Field(None, description="only improvements that beat this value too count")
    restore_best: bool = Field(
        False, description="the stage's best epoch is the best by this rule, and what follows begins from it"
    )


class PlateauSettings(Strict):
    """When the learning rate is lowered; decides as Keras's ReduceLROnPlateau."""

    monitor: Monitor = Field("val_loss", description="the measure to watch, as in metrics.jsonl")
    mode: Mode | None = Field(None, description="`min` or `max`; known from the measure's name")
    factor: float = Field(0.1, gt=0, lt=1, description="what the rates are multiplied by")
    patience: int = Field(10, ge=0, description="epochs without improvement that lower the rates")
    min_delta: float = Field(1e-4, ge=0, description="an improvement is a change by more than this")
    cooldown: int = Field(0, ge=0, description="epochs after a reduction in which nothing is counted")
    min_lr: float = Field(0.0, ge=0, description="no rate is lowered below this")


class StageSettings(Strict):
    """One stage; keys not given come from `defaults`."""

    name: str = Field(min_length=1, description="its name in the run, the report and `--stages`")
    train: str | list[str] = Field("head", description="selectors of what trains; all else is frozen")
    epochs: int | None = Field(None, ge=1, description="at most so many passes over the training images; 10")
    steps: int | None = Field(None, ge=1, description="the length in optimizer steps, in the place of epochs")
    optimizer: str = Field(
        "auto",
        description="adamw, adam, sgd (Nesterov), momentum (plain), any other of timm's, lbfgs (solves a linear head "
        "on fixed features), or auto: lbfgs where it can, else adamw",
        json_schema_extra={"enum": list(OPTIMIZERS)},
    )
    optimizer_args: dict[str, Any] = Field(
        default_factory=dict, description="further arguments of the optimizer, as {betas: [0.9, 0.99]}"
    )
    lr: Positive | dict[str, Positive] | None = Field(
        None,
        description="learning rate; the optimizer's usual one. Or rates by selector, as {all: 1e-5, head: 1e-3}: the "
        "last one that a layer is under counts",
    )
    backbone_lr: float = Field(1.0, gt=0, description="learning rate of pretrained layers, as a factor of lr")
    layer_decay: float | None = Field(
        None, gt=0, le=1, description="factor on the rate for each step of depth below the head"
    )
    weight_decay: float = Field(0.0, ge=0, description="weight decay, not on biases and norms")
    decay_norm_and_bias: bool = Field(False, description="weight decay on biases and norms too")
    momentum: float | None = Field(None, ge=0, lt=1, description="of optimizers that have one; 0.9")
    schedule: Literal["constant", "cosine", "one-cycle"] | ScheduleSettings = Field(
        "constant", description="how the rate goes over the stage; a name, or a group with its settings"
    )
    warmup_epochs: float = Field(0.0, ge=0, description="epochs over which the rate rises from zero")
    warmup_steps: int | None = Field(None, ge=0, description="the same in steps")
    batch_size: int | None = Field(None, ge=1, description="images at a time; data.batch_size")
    accumulate: int = Field(1, ge=1, description="batches whose gradients make one optimizer step")
    image_size: Pixels | tuple[Pixels, Pixels] | None = Field(
        None, description="side, or [height, width], in pixels; model.image_size"
    )
    precision: Literal["fp32", "bf16", "fp16"] | None = Field(None, description="numerics.precision of this stage")
    augment: AugmentSettings | None = Field(None, description="how training images vary")
    mixup: float = Field(0.0, ge=0, description="alpha of mixup: images and targets are blended; 0 is off")
    cutmix: float = Field(0.0, ge=0, description="alpha of CutMix: a box of one image is put into another; 0 is off")
    loss: Literal["cross_entropy", "dice", "focal"] | dict[Literal["cross_entropy", "dice", "focal"], Positive] = Field(
        "cross_entropy",
        description="of segmentation: cross_entropy, dice, focal, or factors of a sum, as {cross_entropy: 1, dice: 1}",
    )
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="share of the target spread over all classes")
    class_weights: Literal["balanced", "median_frequency"] | list[float] | dict[str, float] | None = Field(
        None,
        description="weights in the loss: balanced, median_frequency (of pixels), one for each class in order, or by "
        "class name",
    )
    sampling: Literal["shuffled", "balanced"] = Field(
        "shuffled", description="each image once an epoch, or each class equally often"
    )
    clip_norm: float | None = Field(None, gt=0, description="largest norm of the gradient")
    ema: float | None = Field(
        None, gt=0, lt=1, description="decay of the moving average of the weights that is validated and kept, as 0.999"
    )
    early_stopping: EarlyStoppingSettings | None = Field(None, description="when the stage ends early")
    plateau: PlateauSettings | None = Field(None, description="when the learning rate is lowered")
    bn: Literal["train", "affine-only", "frozen"] | None = Field(
        None, description="batch norms of what trains; right for each layer by itself"
    )
    start: Literal["best", "last"] = Field("best", description="begin from which state of the stage before")

    @field_validator("optimizer")
    @classmethod
    def _known_optimizer(cls, name: str) -> str:
        if name not in OPTIMIZERS:
            near = nearest(name, OPTIMIZERS)
            raise ValueError("is no optimizer that regraft knows" + (f"; did you mean {near}?" if near else ""))
        return name
