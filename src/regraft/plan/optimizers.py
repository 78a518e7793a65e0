"""What the optimizers of a stage do; `regraft.settings.optimizers` lists them.

Those of the default stages are torch's, with the names and the defaults that timm's registry has. It knows the others,
and is imported for them alone: it brings torch's compiler, which takes longer to import than torch.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import partial
from typing import Any

from torch.optim import SGD, Adam, AdamW, Optimizer

from regraft.compute.eager_optimizers import eager
from regraft.settings.stage import Stage

__all__ = ["can_fuse", "default_rate", "has_momentum", "learning_rate", "missing_optimizer", "optimizer_class"]

_TORCH: dict[str, tuple[type[Optimizer], dict[str, Any]]] = {
    "sgd": (SGD, {"nesterov": True}),
    "nesterov": (SGD, {"nesterov": True}),
    "momentum": (SGD, {"nesterov": False}),
    "adam": (Adam, {}),
    "adamw": (AdamW, {}),
}
# What regraft's own stages are tuned to; otherwise the optimizer's own default.
_RATES = {"sgd": 1e-2, "momentum": 1e-2, "nesterov": 1e-2, "adam": 1e-3, "adamw": 1e-3}


def missing_optimizer(name: str) -> str | None:
    """Say that the installed timm does not have an optimizer that regraft knows; None where it does."""
    if name in ("auto", "lbfgs", *_TORCH):
        return None
    import timm
    from timm.optim import list_optimizers

    if name in list_optimizers():
        return None
    return f"optimizer is {name!r}, which timm {timm.__version__} does not have; install a newer timm"


def optimizer_class(name: str) -> Any:
    """Return the optimizer's constructor, which takes parameter groups and settings."""
    if name not in _TORCH:
        return _timm_class(name, bind_defaults=True)
    kind, defaults = _TORCH[name]
    return partial(eager(kind), **defaults)


def can_fuse(name: str) -> bool:
    """Return whether torch has a fused implementation of it, on CPUs and CUDA devices."""
    return name in _TORCH


def has_momentum(name: str) -> bool:
    """Return whether this optimizer has a momentum."""
    if name in ("auto", "lbfgs") or name in _TORCH:
        return name in _TORCH and _TORCH[name][0] is SGD
    from timm.optim import get_optimizer_info

    return bool(get_optimizer_info(name).has_momentum)


def learning_rate(stage: Stage) -> float:
    """Return the largest learning rate of a full step, before the schedule."""
    if isinstance(stage.lr, Mapping):
        return max(stage.lr.values())
    return stage.lr if isinstance(stage.lr, float | int) else default_rate(stage.optimizer)


def default_rate(name: str) -> float:
    """Return the learning rate of a stage that sets none."""
    if name in _RATES or name in ("auto", "lbfgs"):
        return _RATES.get(name, 1e-3)
    default = inspect.signature(_timm_class(name, bind_defaults=False)).parameters["lr"].default
    return float(default) if isinstance(default, float) and default > 0 else 1e-3


def _timm_class(name: str, *, bind_defaults: bool) -> Any:
    from timm.optim import get_optimizer_class

    return get_optimizer_class(name, bind_defaults=bind_defaults)
