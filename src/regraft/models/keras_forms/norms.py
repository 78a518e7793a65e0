"""What the batch norms and convolutions of Keras's networks have that timm's have not."""

from __future__ import annotations

from collections.abc import Iterable

from torch import nn

__all__ = ["add_biases", "set_norms", "without_scale"]


def set_norms(model: nn.Module, *, eps: float, momentum: float) -> None:
    """Give all batch norms this epsilon and Keras's momentum (the share that is kept, where torch has the other)."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps, module.momentum = eps, round(1 - momentum, 6)


def without_scale(model: nn.Module) -> None:
    """Take the scale from all batch norms (Keras's `scale=False`); the shift stays."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_parameter("weight", None)


def add_biases(convs: Iterable[nn.Conv2d]) -> None:
    """Give convolutions a bias of zeros, Keras's start."""
    for conv in convs:
        conv.bias = nn.Parameter(conv.weight.new_zeros(conv.out_channels))
