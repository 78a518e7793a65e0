"""The depth of each parameter in a network, for layer-wise decay of the learning rate."""

from __future__ import annotations

from timm.models import group_parameters
from torch import nn

from regraft.models.describe.trace import plain
from regraft.models.layers.layers import survey

__all__ = ["depths"]


def depths(model: nn.Module) -> dict[str, int]:
    """Return the depth of each parameter by name: 0 at the stem, largest in the head.

    timm models count as in timm (`group_matcher`: as a rule the stem, each block, the head). In any other
    model each layer of the backbone's listing that holds a matrix or kernels is one deeper than the one before (norms
    and biases belong to the layer that they follow), and the head is the deepest.
    """
    model = plain(model)
    matcher = getattr(model, "group_matcher", None)
    if matcher is not None:
        return dict(group_parameters(model, matcher(coarse=False), reverse=True))
    found: dict[str, int] = {}
    modules = dict(model.named_modules())
    depth = -1
    backbone = [layer for layer in survey(model).layers if layer.part == "backbone"]
    for layer in backbone:
        names = {
            f"{name}.{key}".removeprefix("."): parameter
            for name in layer.modules
            for key, parameter in modules[name].named_parameters(recurse=False)
        }
        if depth < 0 or any(parameter.ndim > 1 for parameter in names.values()):
            depth += 1
        found |= dict.fromkeys(names, depth)
    return {name: found.get(name, depth + 1) for name, _ in model.named_parameters()}
