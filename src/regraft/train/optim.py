"""Optimizers, built from the plan: exactly what trains, by name, decay never on biases and norms."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from regraft.models.info import info_of
from regraft.plan.stages import Stage

__all__ = ["build_optimizer", "set_rates"]


def build_optimizer(model: nn.Module, stage: Stage) -> torch.optim.Optimizer:
    """The optimizer of a stage over every parameter that `freeze` left trainable.

    Groups are named `head`, `head/no-decay`, `backbone`, `backbone/no-decay`; each keeps the names of its
    parameters, so that its state is stored by name and never by position.
    """
    info = info_of(model)
    groups: dict[str, dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        part = "head" if info.is_head(name) else "backbone"
        decays = parameter.ndim > 1 and stage.weight_decay > 0
        key = part if decays or stage.weight_decay == 0 else f"{part}/no-decay"
        rate = stage.learning_rate * (stage.backbone_lr if part == "backbone" else 1.0)
        group = groups.setdefault(
            key,
            {
                "params": [],
                "names": [],
                "name": key,
                "lr": rate,
                "base_lr": rate,
                "weight_decay": stage.weight_decay if decays else 0.0,
            },
        )
        group["params"].append(parameter)
        group["names"].append(name)
    return _create(stage, list(groups.values()))


def set_rates(optimizer: torch.optim.Optimizer, factor: float) -> dict[str, float]:
    """Set every group's rate to its base times `factor`, and return the rates by group."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
    return {group["name"]: group["lr"] for group in optimizer.param_groups}


def _create(stage: Stage, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    rate = stage.learning_rate
    if stage.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=rate, momentum=stage.momentum, nesterov=stage.momentum > 0)
    if stage.optimizer == "adam":
        return torch.optim.Adam(groups, lr=rate)
    return torch.optim.AdamW(groups, lr=rate)
