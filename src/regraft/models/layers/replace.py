"""One layer of a network replaced by name; every other tensor keeps its bytes."""

from __future__ import annotations

import copy
import warnings

from torch import nn

from regraft.errors import SettingsError
from regraft.models.describe.info import info_of, is_under, set_info
from regraft.models.describe.trace import own_tensors, plain, trace
from regraft.models.layers.cut import find_layer

__all__ = ["replace_layer"]


def replace_layer(model: nn.Module, name: str, layer: nn.Module) -> nn.Module:
    """Return a copy of `model` with `layer` instead of the module `name`; `model` itself stays as it was.

    The copy counts as a module of the user's own: a model folder holds its weights, and `rg.load_model` and
    `rg.resume` need the module itself (`model=`), because no name says how to build it.

    Args:
        model: Any network.
        name: A module's full name, or its name in Keras.
        layer: What takes its place; a copy of it is used.

    Raises:
        SettingsError: There is no such layer, or the network does not run with the new one, or gives another shape.
    """
    original = plain(model)
    place = find_layer(original, name)
    info = copy.deepcopy(info_of(original))
    before = trace(original)
    changed = copy.deepcopy(original)
    parent, _, last = place.rpartition(".")
    new = copy.deepcopy(layer)
    new.train(original.get_submodule(place).training)
    setattr(changed.get_submodule(parent), last, new)
    modules = {module for module, _ in changed.named_modules()}
    info.head = tuple(prefix for prefix in info.head if prefix in modules)
    info.feature_stages = tuple(stage for stage in info.feature_stages if stage in modules)
    info.args = {**info.args, "own_module": True}
    if any(own_tensors(module) for module in new.modules()):
        kept = [prefix for prefix in info.new_layers if not is_under(prefix, (place,))]
        info.origin.new_layers = (*kept, place)
    set_info(changed, info)
    _check(changed, place, layer, before[""].shape)
    if place not in before:
        warnings.warn(f"{place!r} does not run in evaluation mode; replacing it may have no effect", stacklevel=2)
    return changed


def _check(changed: nn.Module, place: str, layer: nn.Module, shape: tuple[int, ...] | None) -> None:
    try:
        after = trace(changed)[""].shape
    except SettingsError as error:
        raise SettingsError(
            f"The network does not run with {type(layer).__name__} instead of {place!r}.",
            "a layer that takes what the one before it gives, and gives what the one behind it takes",
            "`regraft inspect MODEL` for the shapes, or change the layers around it as well",
            details=error.details,
        ) from error
    if after != shape:
        raise SettingsError(
            f"With {type(layer).__name__} instead of {place!r} the network gives {after} instead of {shape}.",
            "an output of the same shape",
            "choose a layer of the same output shape; for another number of classes use `rg.adapt`",
        )
