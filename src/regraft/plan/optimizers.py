"""Which optimizers a stage may name: timm's registry, but for those whose state cannot be saved and given back."""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any

from timm.optim import get_optimizer_class, get_optimizer_info
from timm.optim import list_optimizers as _list
from torch.optim import SGD, Adam, AdamW

from regraft.errors import nearest

__all__ = ["can_fuse", "has_momentum", "optimizer_class", "optimizer_mistake", "optimizer_names", "usual_rate"]

# What regraft's own stages are tuned to; elsewhere the optimizer's own default.
_RATES = {"sgd": 1e-2, "momentum": 1e-2, "nesterov": 1e-2, "adam": 1e-3, "adamw": 1e-3}


@cache
def optimizer_names() -> tuple[str, ...]:
    """The names that `optimizer:` takes, `auto` and `lbfgs` among them."""
    return ("auto", "lbfgs", *(name for name in _list() if _unusable(name) is None))


def optimizer_mistake(name: str) -> str | None:
    """Why a stage cannot have this optimizer, or None."""
    if name in optimizer_names():
        return None
    if name in _list():
        return f"optimizer is {name!r}: {_unusable(name)}"
    near = nearest(name, optimizer_names())
    return f"optimizer is {name!r}, which timm does not have" + (f"; did you mean {near}?" if near else "")


def optimizer_class(name: str) -> Any:
    """What makes the optimizer: called with groups and with settings that it knows."""
    return get_optimizer_class(name)


def can_fuse(name: str) -> bool:
    """Whether torch has a form of it that takes a step in one pass over memory, on CPUs and CUDA devices."""
    return get_optimizer_class(name, bind_defaults=False) in (SGD, Adam, AdamW)


def has_momentum(name: str) -> bool:
    """Whether the setting `momentum` does anything for this optimizer."""
    return name not in ("auto", "lbfgs") and bool(get_optimizer_info(name).has_momentum)


def usual_rate(name: str) -> float:
    """The learning rate of a stage that gives none."""
    if name in _RATES or name in ("auto", "lbfgs"):
        return _RATES.get(name, 1e-3)
    default = inspect.signature(get_optimizer_class(name, bind_defaults=False)).parameters["lr"].default
    return float(default) if isinstance(default, float) and default > 0 else 1e-3


def _unusable(name: str) -> str | None:
    info = get_optimizer_info(name)
    if isinstance(info.opt_class, str):
        return f"it needs the package {info.opt_class.partition('.')[0]}, which regraft does not use"
    if info.second_order:
        return "it needs second derivatives, which regraft's step does not compute"
    if info.opt_class.__name__ == "Kron":
        return "it keeps random numbers of its own, so that a resumed run would not end in the same bits"
    return None
