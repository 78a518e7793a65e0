"""Keep a module in eval mode, whoever calls `.train()`: its statistics stand still and its dropout is off.

The module stays the very module that it was. It gets an attribute `train` of its own, which sets the mode of what lies
inside it and leaves itself in eval mode. The attribute goes along with `copy.deepcopy` and `pickle`, and it is not in
the state dict.
"""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

__all__ = ["hold", "is_held", "release"]


class _Held:
    """What `module.train(mode)` calls on a held module; a class at module level, so that copies and pickles hold it."""

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.mode = module.training  # the mode asked for last, given back on release
        self.previous = module.__dict__.get("train")  # an override of the user's own

    def __call__(self, mode: bool = True) -> nn.Module:
        if self.previous is not None:
            self.previous(mode)
        else:
            type(self.module).train(self.module, mode)
        self.mode = mode
        self.module.training = False
        return self.module


def hold(modules: Iterable[nn.Module]) -> None:
    """Put modules into eval mode, in place and for good; modules inside them keep their own modes."""
    for module in modules:
        if not is_held(module):
            module.train = _Held(module)  # type: ignore[method-assign]
        module.training = False


def release(modules: Iterable[nn.Module]) -> None:
    """Undo `hold`, in place: each module gets back its own `train` and the mode that was last asked for."""
    for module in modules:
        held = module.__dict__.get("train")
        if not isinstance(held, _Held):
            continue
        del module.__dict__["train"]
        if held.previous is not None:
            module.__dict__["train"] = held.previous
        module.training = held.mode


def is_held(module: nn.Module) -> bool:
    """Whether `hold` keeps this module in eval mode."""
    return isinstance(module.__dict__.get("train"), _Held)
