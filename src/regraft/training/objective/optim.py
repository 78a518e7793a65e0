"""Optimizers, built from the plan: exactly what trains, by name, each parameter in the group of its rate."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from regraft.compute.eager_optimizers import eager
from regraft.errors import SettingsError
from regraft.models.describe.trace import plain
from regraft.plan.length import Length
from regraft.plan.optimizers import can_fuse, has_momentum, learning_rate, optimizer_class
from regraft.plan.rates import never_decays, rates_of
from regraft.settings.stage import Stage
from regraft.training.objective.schedule import momentum_at, rate_at

__all__ = ["build_optimizer", "set_rates"]


def build_optimizer(model: nn.Module, stage: Stage) -> torch.optim.Optimizer:
    """Return the optimizer of a stage over every parameter that `freeze` left trainable.

    Groups are named by what sets their rate (`head`, `backbone`, a selector of `lr`), with `/no-decay` where weight
    decay spares them; each keeps the names of its parameters, so that its state is stored by name and never by
    position.

    Raises:
        SettingsError: The optimizer does not take what `optimizer_args` holds.
    """
    model = plain(model)
    trainable = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    rates = rates_of(model, stage, tuple(trainable))
    groups: dict[str, dict[str, Any]] = {}
    for name, parameter in trainable.items():
        rate = rates[name]
        spared = stage.weight_decay > 0 and not stage.decay_norm_and_bias and never_decays(model, name, parameter)
        key = f"{rate.group}/no-decay" if spared else rate.group
        decay = 0.0 if spared else stage.weight_decay
        empty = {"params": [], "names": [], "name": key, "lr": rate.lr, "base_lr": rate.lr, "weight_decay": decay}
        group = groups.setdefault(key, empty)
        group["params"].append(parameter)
        group["names"].append(name)
    return _create(stage, list(groups.values()))


def set_rates(
    optimizer: torch.optim.Optimizer, stage: Stage, step: int, length: Length, *, scale: float = 1.0
) -> dict[str, float]:
    """Set every group's rate, and the momentum where the schedule moves it; returns the rates by group.

    Args:
        optimizer: From `build_optimizer`.
        stage: Whose schedule counts.
        step: The step of the stage, from 0.
        length: How long the stage is.
        scale: What the plateau rule has multiplied the rates by so far.
    """
    momentum = momentum_at(stage, step, length)
    for group in optimizer.param_groups:
        group["lr"] = rate_at(stage, group["base_lr"], step, length, scale=scale)
        if momentum is not None and "betas" in group:
            group["betas"] = (momentum, *group["betas"][1:])
        elif momentum is not None and "momentum" in group:
            group["momentum"] = momentum
    return {group["name"]: group["lr"] for group in optimizer.param_groups}


def _create(stage: Stage, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    if stage.optimizer == "lbfgs":  # the head is solved; what trains is held by an optimizer that never steps
        return eager(torch.optim.SGD)(groups, lr=learning_rate(stage))
    arguments: dict[str, Any] = {"lr": learning_rate(stage)}
    if has_momentum(stage.optimizer):
        arguments["momentum"] = 0.9 if stage.momentum is None else stage.momentum
        if arguments["momentum"] == 0 and stage.optimizer in ("sgd", "nesterov"):
            arguments["nesterov"] = False
    if _fuses(stage, groups):
        arguments["fused"] = True
    arguments |= {key: _plain(value) for key, value in stage.optimizer_args.items()}
    try:
        optimizer: torch.optim.Optimizer = optimizer_class(stage.optimizer)(groups, **arguments)
    except (TypeError, ValueError, AssertionError) as error:
        raise SettingsError(
            f"The optimizer {stage.optimizer!r} of stage {stage.name!r} does not take its settings: {error}.",
            "arguments that torch or timm documents for it",
            "correct `optimizer_args`, or leave it out",
        ) from error
    return optimizer


def _fuses(stage: Stage, groups: list[dict[str, Any]]) -> bool:
    """Return whether torch takes each step in one pass over memory: several times faster than a pass for each
    operation.
    """
    parameters = [parameter for group in groups for parameter in group["params"]]
    return can_fuse(stage.optimizer) and all(
        parameter.is_floating_point() and parameter.device.type in ("cpu", "cuda") for parameter in parameters
    )


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value  # YAML has no tuples
