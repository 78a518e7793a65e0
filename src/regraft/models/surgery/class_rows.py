"""The rows of a classifier follow the class names: kept where a name survives, new where it is new.

One logit of two classes is the difference of their rows, so softmax and binary heads turn into each other without a
loss. The rows of a multi-label head are no differences, and nothing is carried between them and the others.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from regraft.models.describe.info import info_of
from regraft.models.describe.outputs import num_logits
from regraft.models.describe.provenance import Rows
from regraft.models.surgery.head import HeadModule

__all__ = ["keep_rows"]


def keep_rows(old: nn.Module, new: nn.Module, classes: Sequence[str], *, wanted: bool = True) -> Rows:
    """Copy the rows of class names that both heads have from `old` into `new`, in place.

    Hidden layers of a head go along, because its rows mean nothing without them. Nothing is copied between heads of
    different forms, or where no name survives.

    Args:
        old: The network before, with class names.
        new: Its copy with a new head for `classes`, all of it random; edited in place.
        classes: The class names of the new head.
        wanted: False keeps nothing and says what would have been kept.
    """
    before = info_of(old).class_names or ()
    outputs = info_of(old).output, info_of(new).output
    kept = tuple(name for name in classes if name in before)
    dropped = tuple(name for name in before if name not in classes)
    reason = _obstacle(outputs, len(kept), wanted=wanted) if kept else ""
    pairs: list[tuple[nn.Module, nn.Module]] = []
    if kept and not reason:
        sizes = num_logits(outputs[0], len(before)), num_logits(outputs[1], len(classes))
        pairs, reason = _classifiers(old, new, *sizes)
    if not kept or reason:
        return Rows((), tuple(classes), dropped, reason)
    places = torch.tensor([[before.index(name), row] for row, name in enumerate(classes) if name in before])
    with torch.no_grad():
        for source, target in pairs:
            for name, tensor in target.named_parameters(recurse=False):
                _copy_rows(getattr(source, name).to(tensor.dtype), tensor, places, outputs)
    return Rows(kept, tuple(name for name in classes if name not in before), dropped)


def _obstacle(outputs: tuple[str, str], num_kept: int, *, wanted: bool) -> str:
    """Return why rows of names that both heads have cannot be kept, whatever the layers are."""
    if not wanted:
        return "a new head was asked for"
    if "binary" in outputs and num_kept < 2:
        return "one logit stands for two classes, and only one of them stays"
    if outputs[0] != outputs[1] and "multilabel" in outputs:
        return f"a {outputs[0]} head became a {outputs[1]} head, whose rows mean something else"
    return ""


def _copy_rows(source: Tensor, target: Tensor, places: Tensor, outputs: tuple[str, str]) -> None:
    """Copy rows, in place; `places` has the old and the new position of each class that stays."""
    if outputs[0] == "binary":  # the first class has the logit 0
        source = torch.cat([torch.zeros_like(source), source])
    rows = source[places[:, 0]]
    if outputs[1] == "binary":
        target[0] = rows[1] - rows[0]
    else:
        target[places[:, 1]] = rows


def _classifiers(
    old: nn.Module, new: nn.Module, num_old: int, num_new: int
) -> tuple[list[tuple[nn.Module, nn.Module]], str]:
    """Return the last layers of both networks, pair by pair, or why their rows cannot be told apart.

    Hidden layers of heads of one form are copied on the way.
    """
    modules, pairs = dict(old.named_modules()), []
    heads: list[tuple[HeadModule, HeadModule]] = []
    info = info_of(new)
    for name in filter(info.is_head, info.new_layers):
        target, source = _last_layer(new.get_submodule(name)), modules.get(name)
        source = None if source is None else _last_layer(source)
        if isinstance(target, HeadModule) and isinstance(source, HeadModule) and _form(source) == _form(target):
            heads.append((source, target))
            source, target = source.get_submodule("classifier"), target.get_submodule("classifier")
        if source is None or type(source) is not type(target) or isinstance(target, HeadModule):
            return [], "the head has another form"
        shapes = [tuple(getattr(layer, "weight", torch.empty(0)).shape) for layer in (source, target)]
        if shapes != [(num_old, *shapes[0][1:]), (num_new, *shapes[0][1:])]:
            return [], f"the weights of the last layer have the shape {shapes[0]}, the new ones {shapes[1]}"
        pairs.append((source, target))
    for source_head, target_head in heads:
        _copy_below_the_classifier(source_head, target_head)
    return pairs, "" if pairs else "the network has no last layer that regraft knows"


def _last_layer(module: nn.Module) -> nn.Module:
    """Return the module itself, or the last dense layer or convolution in it."""
    if isinstance(module, HeadModule):
        return module
    layers = [layer for layer in module.modules() if isinstance(layer, (nn.Linear, nn.Conv2d, HeadModule))]
    return layers[-1] if layers else module


def _form(head: HeadModule) -> list[str]:
    """Return pooling, hidden layers and activations with their widths; what differs in nothing but dropout is the
    same.
    """
    layers = [repr(child) for name, child in head.named_children() if not name.startswith(("drop", "classifier"))]
    return [*layers, str(head.get_submodule("classifier").in_features)]


def _copy_below_the_classifier(source: HeadModule, target: HeadModule) -> None:
    """Copy, in place, everything but the rows."""
    below = {name: tensor for name, tensor in source.state_dict().items() if not name.startswith("classifier.")}
    with torch.no_grad():
        for name, tensor in target.state_dict().items():
            if name in below:
                tensor.copy_(below[name])
