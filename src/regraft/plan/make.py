"""The plan: all stages checked against a model at once, with their open settings resolved."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from regraft.compute.program import split_program
from regraft.errors import SettingsError, require_type
from regraft.models.describe.info import info_of, preprocessing_of
from regraft.models.describe.outputs import output_of
from regraft.models.describe.trace import trace
from regraft.plan.class_weights import by_class_name, class_weight_mistakes
from regraft.plan.effects import without_effect
from regraft.plan.freezing.freeze import freeze
from regraft.plan.losses import loss_terms
from regraft.plan.monitors import monitor_mistakes
from regraft.plan.optimizers import has_momentum, learning_rate, missing_optimizer
from regraft.plan.rates import fine_tuning_rate, rates_of
from regraft.settings.stage import DEFAULT_EPOCHS, Stage
from regraft.summary import Summary
from regraft.wording import quantity

__all__ = ["Plan", "make_plan"]

_FEWEST_REDUCED = 128  # pixels a side; smaller images have none to spare


@dataclass(frozen=True, repr=False)
class Plan(Summary):
    """The stages of a run, checked against a model, with every `auto` resolved.

    Attributes:
        stages: The stages in order.
        trainable: The trainable parameters of each stage, by full name.
        warnings: Settings without effect, one sentence each.
    """

    stages: tuple[Stage, ...]
    trainable: tuple[tuple[str, ...], ...] = field(repr=False, default=())
    warnings: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Stage]:
        return iter(self.stages)

    def __len__(self) -> int:
        return len(self.stages)

    @property
    def interpolated(self) -> frozenset[str]:
        """The names of the stages that end with a network between their start and their end."""
        return frozenset(stage.name for stage in self.stages if stage.interpolate)

    def facts(self) -> dict[str, object]:
        """Return each stage in a line: what trains, by which optimizer, for how long."""
        return {
            stage.name: f"trains {', '.join(stage.selectors)} ({quantity(len(names), 'tensor')}), {stage.optimizer}"
            + (f", {quantity(stage.steps, 'step')}" if stage.steps else "")
            + (f", {quantity(stage.epochs, 'epoch')}" if stage.epochs else "")
            for stage, names in zip(self.stages, self.trainable or [()] * len(self.stages), strict=True)
        }

    def settings(self) -> dict[str, Any]:
        """Return the stages as a recipe has them."""
        return {"stages": [stage.to_dict() for stage in self.stages]}


def make_plan(model: nn.Module, stages: Sequence[Stage]) -> Plan:
    """Check all stages against the model at once, and resolve their open settings. Trains nothing.

    Raises:
        SettingsError: A selector that matches nothing, two stages of one name, a stage in which nothing trains, rates
            that leave something out, an image size that the network cannot take, class weights of other classes.
    """
    if isinstance(stages, Stage) or not all(isinstance(stage, Stage) for stage in stages):
        raise SettingsError(
            f"The stages of the plan are {stages!r}."[:300],
            "a list of `rg.Stage`, one for each stage",
            "`rg.make_plan(model, [rg.Stage(...)])`",
        )
    require_type(model, nn.Module, "model", 'make one with `rg.build_model("resnet18")`')
    if not stages:
        raise SettingsError("The plan has no stages.", "", "add a stage to the recipe")
    names = [stage.name for stage in stages]
    mistakes = [f"two stages are named {name!r}" for name in sorted(set(names)) if names.count(name) > 1]
    resolved: list[Stage] = []
    trainable: list[tuple[str, ...]] = []
    warnings: list[str] = []
    trial = copy.deepcopy(model)
    layers: set[str] = set()
    for stage in stages:
        try:
            frozen = freeze(trial, stage.selectors, bn=stage.bn, trained=layers)
        except SettingsError as error:
            mistakes.append(f"stage {stage.name!r}: {error}")
            continue
        stage = _with_training_size(_with_rate(stage, trial), trial)
        found = list(_misfits(trial, stage, frozen.trainable))
        mistakes += [f"stage {stage.name!r}: {text}" for text in found]
        if not found:
            resolved.append(_resolve(stage, trial))
            as_run = replace(stage, optimizer=resolved[-1].optimizer)
            warnings += [f"stage {stage.name!r}: {text}" for text in without_effect(as_run, asked=stage.optimizer)]
        trainable.append(frozen.trainable)
        layers |= set(frozen.layers)
    if mistakes:
        raise SettingsError(
            "The stages do not fit the model.",
            "",
            "",
            details=mistakes,
        )
    return Plan(tuple(resolved), tuple(trainable), tuple(warnings))


def _misfits(frozen_model: nn.Module, stage: Stage, trainable: Sequence[str]) -> Iterator[str]:
    """Find what the stage asks for and this model, or this installation, cannot do."""
    if (missing := missing_optimizer(stage.optimizer)) is not None:
        yield missing
        return
    if stage.rate_schedule.min_lr is not None and stage.rate_schedule.min_lr > learning_rate(stage):
        yield "schedule.min_lr is above the learning rate"
    try:
        rates_of(frozen_model, stage, trainable)
    except SettingsError as error:
        yield from error.details or (str(error),)
    if stage.optimizer == "lbfgs" and not _fits_lbfgs(stage, frozen_model):
        yield (
            "lbfgs fits a single linear layer on fixed images; this stage trains more, augments its images, samples "
            "classes or averages weights; set `optimizer: adamw`"
        )
    yield from _size_misfits(frozen_model, stage)
    yield from monitor_mistakes(stage, frozen_model)
    yield from _mask_misfits(stage, output_of(frozen_model))
    yield from class_weight_mistakes(stage.class_weights, info_of(frozen_model).class_names or ())
    output = output_of(frozen_model)
    if stage.logit_adjustment not in (0, "auto") and output != "softmax":
        yield f"logit_adjustment is for a head that names one of several classes (softmax), not {output}"
    if stage.sampling == "balanced" and output == "multilabel":
        yield "sampling: balanced needs one class for each image; set `class_weights: balanced` for several labels"


def _size_misfits(model: nn.Module, stage: Stage) -> Iterator[str]:
    for key, size in (("image_size", stage.image_size), ("train_image_size", stage.train_image_size)):
        try:
            if size is not None and size != "auto":
                trace(model, size)
        except SettingsError as error:
            yield f"{key}: {error.what}"


def _mask_misfits(stage: Stage, output: str) -> Iterator[str]:
    """Find what a stage asks for that does not go with this output, because its targets are, or are not, masks."""
    if output != "segmentation":
        if loss_terms(stage.loss) != {"cross_entropy": 1.0}:
            yield f"loss is {_shown(stage.loss)}, a loss for pixels; a {output} head has its own loss, so leave it out"
        if stage.class_weights == "median_frequency":
            yield "class_weights: median_frequency counts the pixels of masks; set `class_weights: balanced`"
        return
    if stage.mixes:
        yield (
            "mixup and cutmix mix the labels of whole images, but these images have masks; leave them out and use "
            "`augment`"
        )
    if stage.sampling == "balanced":
        yield (
            "sampling: balanced needs one class for each image, and a mask has many; set `class_weights: "
            "median_frequency`"
        )


def _shown(loss: str | Mapping[Any, float]) -> str:
    return (
        loss if isinstance(loss, str) else "{" + ", ".join(f"{name}: {factor:g}" for name, factor in loss.items()) + "}"
    )


def _fits_lbfgs(stage: Stage, frozen_model: nn.Module) -> bool:
    varies = stage.augment is not None and not stage.augment.is_identity
    if varies or stage.mixes or stage.sampling != "shuffled" or stage.ema is not None:
        return False
    return not (stage.interpolate or stage.soup) and split_program(frozen_model).is_linear is not None


def _with_rate(stage: Stage, model: nn.Module) -> Stage:
    """Return the stage with a number for `lr: auto`."""
    optimizer = "adamw" if stage.optimizer in ("auto", "lbfgs") else stage.optimizer
    return replace(stage, lr=fine_tuning_rate(model, optimizer)) if stage.lr == "auto" else stage


def _with_training_size(stage: Stage, model: nn.Module) -> Stage:
    """Return the stage with a size, or none, for `train_image_size: auto`.

    A network knows images best that are a little larger than those it was trained on, and smaller ones cost less.
    Source: Touvron et al., arXiv:1906.06423.
    """
    if stage.train_image_size != "auto":
        return stage
    height, width = stage.size or preprocessing_of(model).pixels.size
    full = replace(stage, train_image_size=None)
    if min(height, width) < _FEWEST_REDUCED:
        return full
    smaller = _smaller(height), _smaller(width)
    if round(smaller[0] / smaller[1], 2) != round(height / width, 2):
        return full
    try:
        trace(model, smaller)
    except SettingsError:
        return full
    return replace(stage, train_image_size=smaller[0] if smaller[0] == smaller[1] else smaller)


def _smaller(side: int) -> int:
    """Return 6/7 of a side, in steps of 16 pixels, by which most networks are whole at every stage."""
    return round(side * 6 / 7 / 16) * 16


def _resolve(stage: Stage, frozen_model: nn.Module) -> Stage:
    stage = replace(stage, class_weights=by_class_name(stage.class_weights, info_of(frozen_model).class_names or ()))
    optimizer = stage.optimizer
    if optimizer == "auto":
        optimizer = "lbfgs" if _fits_lbfgs(stage, frozen_model) and stage.steps is None else "adamw"
    if optimizer == "lbfgs":
        return replace(stage, optimizer=optimizer, epochs=None)
    epochs = stage.epochs if stage.epochs is not None or stage.steps is not None else DEFAULT_EPOCHS
    momentum = 0.9 if stage.momentum is None and has_momentum(optimizer) else stage.momentum
    return replace(stage, optimizer=optimizer, epochs=epochs, momentum=momentum)
