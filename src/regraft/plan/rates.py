"""The learning rate of each parameter of a stage, and the group of the optimizer that it falls in."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from torch import nn

from regraft.errors import SettingsError
from regraft.models.describe.info import info_of
from regraft.models.describe.trace import plain
from regraft.plan.freezing.depth import depths
from regraft.plan.freezing.select import select
from regraft.plan.optimizers import default_rate, learning_rate
from regraft.settings.stage import Stage

__all__ = ["ParameterRate", "fine_tuning_rate", "never_decays", "rates_of"]

_WITH_NORMS, _WITHOUT = 6e-4, 1e-4


@dataclass(frozen=True)
class ParameterRate:
    """The learning rate of one parameter.

    Attributes:
        group: The name of its group: `head`, `backbone` and `decoder`, or the selector of `lr`, and the depth where
            rates decay.
        lr: The rate of a full step, before the schedule.
    """

    group: str
    lr: float


def rates_of(model: nn.Module, stage: Stage, trainable: Sequence[str]) -> dict[str, ParameterRate]:
    """Return the rate of each trainable parameter, by name.

    Args:
        model: The model.
        stage: Its `lr`, `backbone_lr` and `layer_decay` are used.
        trainable: Full names of trainable parameters.

    Raises:
        SettingsError: `lr` is a mapping, and a trainable layer is under none of its selectors, or a selector has
            no effect.
    """
    model = plain(model)
    rates = _by_selector(model, stage.lr, trainable) if isinstance(stage.lr, Mapping) else None
    if rates is None:
        info = info_of(model)
        base = learning_rate(stage)
        parts = {part: ParameterRate(part, base) for part in ("head", "decoder")}
        parts["backbone"] = ParameterRate("backbone", base * stage.backbone_lr)
        rates = {name: parts[info.part_of(name)] for name in trainable}
    if stage.layer_decay is None:
        return rates
    depth = depths(model)
    deepest = max(depth.values(), default=0)
    return {
        name: ParameterRate(
            f"{rate.group}/depth-{depth.get(name, deepest)}",
            rate.lr * math.pow(stage.layer_decay, deepest - depth.get(name, deepest)),
        )
        for name, rate in rates.items()
    }


def fine_tuning_rate(model: nn.Module, optimizer: str) -> float:
    """Return the rate that `lr: auto` stands for, with AdamW; other optimizers take their own default.

    Norms keep activations in scale while weights move: networks without any, such as VGG and AlexNet, take smaller
    steps.
    """
    if optimizer != "adamw":
        return default_rate(optimizer)
    return _WITH_NORMS if any(_is_norm(module) for module in model.modules()) else _WITHOUT


def _is_norm(module: nn.Module) -> bool:
    """Return whether a module has a scale that trains, as batch norm and layer norm have."""
    kind = str(getattr(module, "kind", type(module).__name__))  # Keras's name of a layer that Keras made
    return "norm" in kind.lower() and any(True for _ in module.parameters(recurse=False))


def never_decays(model: nn.Module, name: str, parameter: nn.Parameter) -> bool:
    """Return whether weight decay spares this parameter: biases, norms, and those that the model itself names."""
    listed = getattr(model, "no_weight_decay", set)
    return parameter.ndim <= 1 or name.endswith(".bias") or any(fnmatchcase(name, pattern) for pattern in listed())


def _by_selector(model: nn.Module, rates: Mapping[str, float], trainable: Sequence[str]) -> dict[str, ParameterRate]:
    """Assign rates: the last selector that matches a parameter's layer counts."""
    chosen: dict[str, ParameterRate] = {}
    mistakes: list[str] = []
    for selector, rate in rates.items():
        try:
            layers = select(model, selector)
        except SettingsError as error:
            mistakes.append(f"lr: {error}")
            continue
        under = [name for name in trainable if name.rpartition(".")[0] in layers]
        if not under:
            mistakes.append(f"lr: nothing under {selector!r} trains in this stage")
        chosen |= {name: ParameterRate(selector, rate) for name in under}
    used = {rate.group for rate in chosen.values()}
    mistakes += [
        f"lr: {selector!r} has no effect: later entries match all of its layers"
        for selector in rates
        if selector not in used and not any(repr(selector) in mistake for mistake in mistakes)
    ]
    missing = list(dict.fromkeys(name.rpartition(".")[0] for name in trainable if name not in chosen))
    if missing and not mistakes:
        shown = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
        mistakes.append(f"lr: no entry matches {shown}, which trains")
    if mistakes:
        raise SettingsError(
            "The learning rates do not match what trains.",
            "every layer that trains needs a rate; the last matching selector counts",
            "for example: `lr: {all: 1e-5, head: 1e-3}`",
            details=mistakes,
        )
    return chosen
