"""Lock a module in eval mode, whoever calls `.train()`: its statistics do not move and its dropout is off.

The module itself is not replaced. It gets an attribute `train` of its own, which sets the mode of its children and
leaves itself in eval mode. The attribute survives `copy.deepcopy` and `pickle`, and it is not in the state dict.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

__all__ = ["is_eval_locked", "lock_eval", "unlock_eval"]


class _EvalLock:
    """The `train` of a locked module; a class at module level, so that copies and pickles keep it."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.mode = module.training  # the last requested mode, restored on unlock
        self.previous = module.__dict__.get("train")  # an override of the user's own

    def __call__(self, mode: bool = True) -> nn.Module:
        if self.previous is not None:
            self.previous(mode)
        else:
            type(self.module).train(self.module, mode)
        self.mode = mode
        self.module.training = False
        return self.module


def lock_eval(modules: Iterable[nn.Module]) -> None:
    """Lock modules in eval mode, in place; their children keep their own modes."""
    for module in modules:
        if not is_eval_locked(module):
            module.train = _EvalLock(module)  # type: ignore[method-assign]
        module.training = False


def unlock_eval(modules: Iterable[nn.Module]) -> None:
    """Undo `lock_eval`, in place: each module gets back its own `train` and the last requested mode."""
    for module in modules:
        lock = module.__dict__.get("train")
        if not isinstance(lock, _EvalLock):
            continue
        del module.__dict__["train"]
        if lock.previous is not None:
            module.__dict__["train"] = lock.previous
        module.training = lock.mode


def is_eval_locked(module: nn.Module) -> bool:
    """Return whether `lock_eval` keeps this module in eval mode."""
    return isinstance(module.__dict__.get("train"), _EvalLock)
