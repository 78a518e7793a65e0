"""torch's optimizers without the wrappers that import torch's compiler in order to be exempt from it."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch.optim import Optimizer

__all__ = ["eager"]

Kind = TypeVar("Kind", bound=Optimizer)
_WRAPPED = ("add_param_group", "zero_grad", "state_dict", "load_state_dict")
_made: dict[type[Optimizer], type[Optimizer]] = {}


def eager(kind: type[Kind]) -> type[Kind]:
    """Return a class of optimizers that does what `kind` does, to the last bit, and leaves the compiler alone.

    Its methods are the functions that torch has wrapped (`inspect.unwrap`); one that is not wrapped is taken as it is.
    """
    if kind not in _made:
        methods = {name: inspect.unwrap(getattr(kind, name)) for name in _WRAPPED}
        _made[kind] = type(kind.__name__, (kind,), {**methods, "step": _step(inspect.unwrap(kind.step))})
    return _made[kind]  # type: ignore[return-value]


def _step(own: Callable[..., Any]) -> Callable[..., Any]:
    """Return a step that records gradients where the optimizer is differentiable, and nowhere else."""

    @functools.wraps(own)
    def step(self: Optimizer, *given: Any, **named: Any) -> Any:
        with torch.set_grad_enabled(self.defaults.get("differentiable", False)):
            return own(self, *given, **named)

    return step
