"""The plan: all stages checked against a model at once, with what they leave open resolved."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import nn

from regraft.errors import SettingsError, nearest
from regraft.models.info import info_of
from regraft.models.outputs import output_of
from regraft.models.program import split_program
from regraft.models.trace import trace
from regraft.plan.effects import without_effect
from regraft.plan.freeze import freeze
from regraft.plan.losses import mask_mistakes
from regraft.plan.monitors import monitor_mistakes
from regraft.plan.optimizers import has_momentum
from regraft.plan.rates import rates_of
from regraft.plan.stages import DEFAULT_EPOCHS, Stage

__all__ = ["Plan", "make_plan"]


@dataclass(frozen=True)
class Plan:
    """The stages of a run, checked against a model, with every `auto` resolved.

    Attributes:
        stages: The stages in order.
        trainable: The parameters that train in each, by full name.
        warnings: Settings that have no effect, one sentence each.
    """

    stages: tuple[Stage, ...]
    trainable: tuple[tuple[str, ...], ...] = field(repr=False, default=())
    warnings: tuple[str, ...] = ()

    def __iter__(self) -> Iterator[Stage]:
        return iter(self.stages)

    def __len__(self) -> int:
        return len(self.stages)

    def settings(self) -> dict[str, Any]:
        return {"stages": [stage.to_dict() for stage in self.stages]}


def make_plan(model: nn.Module, stages: Sequence[Stage]) -> Plan:
    """Check every stage against the model, all at once, and resolve what they leave open. Trains nothing.

    Raises:
        SettingsError: A selector that matches nothing, two stages of one name, a stage in which nothing trains, rates
            that leave something out, an image size that the network does not take, class weights of other classes.
    """
    if not stages:
        raise SettingsError("The plan has no stages.", "At least one stage is needed.", "Add a stage to the recipe.")
    names = [stage.name for stage in stages]
    mistakes = [f"two stages are called {name!r}" for name in sorted(set(names)) if names.count(name) > 1]
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
            "The plan cannot be carried out.",
            "Each stage trains something, under a name of its own.",
            "Correct these stages of the recipe.",
            details=mistakes,
        )
    return Plan(tuple(resolved), tuple(trainable), tuple(warnings))


def _misfits(frozen_model: nn.Module, stage: Stage, trainable: Sequence[str]) -> Iterator[str]:
    """What the stage asks for and this model cannot do."""
    try:
        rates_of(frozen_model, stage, trainable)
    except SettingsError as error:
        yield from error.details or (str(error),)
    if stage.optimizer == "lbfgs" and not _is_solvable(stage, frozen_model):
        yield (
            "the optimizer lbfgs solves one linear layer on images that do not vary; this stage trains more, varies "
            "its images, samples classes, or averages weights; set `optimizer: adamw`"
        )
    if stage.image_size is not None:
        yield from _size_misfits(frozen_model, stage)
    yield from monitor_mistakes(stage, frozen_model)
    yield from mask_mistakes(stage, output_of(frozen_model))
    yield from _class_misfits(stage, info_of(frozen_model).class_names or ())
    if stage.sampling == "balanced" and output_of(frozen_model) == "multilabel":
        yield "sampling: balanced needs one class for each image; set `class_weights: balanced` for several labels"


def _size_misfits(model: nn.Module, stage: Stage) -> Iterator[str]:
    try:
        trace(model, stage.image_size)
    except SettingsError as error:
        yield f"image_size: {error.what} {error.expected}"


def _class_misfits(stage: Stage, class_names: Sequence[str]) -> Iterator[str]:
    weights = stage.class_weights
    if isinstance(weights, str) or weights is None or not class_names:
        return
    if not isinstance(weights, Mapping):
        if len(weights) != len(class_names):
            yield f"class_weights has {len(weights)} weights for {len(class_names)} classes"
        return
    for name in weights:
        if name not in class_names:
            near = nearest(str(name), list(class_names))
            yield f"class_weights names {name!r}, which is no class" + (f"; did you mean {near}?" if near else "")


def _is_solvable(stage: Stage, frozen_model: nn.Module) -> bool:
    varies = stage.augment is not None and not stage.augment.is_identity
    if varies or stage.mixes or stage.sampling != "shuffled" or stage.ema is not None:
        return False
    return split_program(frozen_model).is_linear is not None


def _resolve(stage: Stage, frozen_model: nn.Module) -> Stage:
    optimizer = stage.optimizer
    if optimizer == "auto":
        optimizer = "lbfgs" if _is_solvable(stage, frozen_model) and stage.steps is None else "adamw"
    if optimizer == "lbfgs":
        return replace(stage, optimizer=optimizer, epochs=None)
    epochs = stage.epochs if stage.epochs is not None or stage.steps is not None else DEFAULT_EPOCHS
    momentum = 0.9 if stage.momentum is None and has_momentum(optimizer) else stage.momentum
    return replace(stage, optimizer=optimizer, epochs=epochs, momentum=momentum)
