"""What stands behind the last feature map: another classifier, another head, or nothing, put in its place.

All functions edit the network and its description in place; `regraft.models.surgery.surgery` works on copies.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from regraft.data.decode.preprocess import Preprocessing
from regraft.errors import SettingsError
from regraft.models.describe.info import ModelInfo
from regraft.models.describe.trace import trace
from regraft.models.surgery.head import HeadModule, TopModule
from regraft.models.surgery.trial import blank_images, telling
from regraft.settings.head import Head

__all__ = ["is_channels_last", "replace_after_features", "replace_head"]


def replace_head(model: nn.Module, info: ModelInfo, head: Head, num_rows: int, preprocessing: Preprocessing) -> None:
    """Put in a new, random head of this form, with so many rows."""
    others = [name for name in info.new_layers if not info.is_head(name)]
    if head.is_plain and hasattr(model, "reset_classifier"):
        model.reset_classifier(num_rows)  # type: ignore[operator]
        if head.dropout:
            _set_dropout(model, info, head.dropout)
        classifier = getattr(model, "pretrained_cfg", {}).get("classifier")
        info.origin.new_layers = (classifier,) if isinstance(classifier, str) else info.head
    elif hasattr(model, "forward_features"):
        replace_after_features(model, info, lambda shape: HeadModule(head, shape, num_rows), preprocessing)
    else:
        _replace_last_layer(model, info, head, num_rows)
    info.origin.new_layers = (*others, *info.new_layers)


def _set_dropout(model: nn.Module, info: ModelInfo, dropout: float) -> None:
    """Set the classifier's dropout, which timm keeps as `drop_rate` (applied in forward) or as a module beside it."""
    model.drop_rate = dropout  # type: ignore[assignment]
    tops = {name.split(".")[0] for name in info.head} | {"head_drop"}
    for top in tops & {name for name, _ in model.named_children()}:
        for module in model.get_submodule(top).modules():
            if isinstance(module, nn.Dropout):
                module.p = dropout


def replace_after_features(
    model: nn.Module,
    info: ModelInfo,
    make: Callable[[Sequence[int]], nn.Module],
    preprocessing: Preprocessing,
) -> None:
    """Put one module instead of everything that runs after the last feature map.

    Args:
        model: The network, edited in place.
        info: Its description, edited in place.
        make: (channels, height, width) of the feature map -> the module.
        preprocessing: What says how large the images are.
    """
    with telling(model, info.architecture, preprocessing), torch.no_grad():
        features: Tensor = model.forward_features(blank_images(model, preprocessing))  # type: ignore[operator]
    if features.ndim != 4 or is_channels_last(model, features.shape[1:]):
        raise SettingsError(
            f"{info.architecture!r} ends in features of shape {tuple(features.shape[1:])}, not in a feature map.",
            "a head with its own pooling or hidden layers needs a feature map (channels, height, width)",
            "leave `head.pool` and `head.hidden` out, or choose a convolutional network",
        )
    own = [name for name in info.head if isinstance(model.get_submodule(name), (HeadModule, TopModule))]
    after = own or _called_after_features(model)
    place = own[0] if own else info.head[-1].split(".")[0] if info.head else after[-1]
    for name in after:
        setattr(model, name, nn.Identity())
    setattr(model, place, make(features.shape[1:]))
    if hasattr(model, "drop_rate"):
        model.drop_rate = 0.0  # type: ignore[assignment]  # the head module has its own dropout
    info.head = (place,)
    info.origin.new_layers = (place,)


def is_channels_last(model: nn.Module, shape: Sequence[int]) -> bool:
    """Return whether a feature map of this shape (without the batch) has its channels behind height and width, as in
    Swin.
    """
    width = getattr(model, "num_features", None)
    return len(shape) == 3 and width == shape[-1] and width != shape[0]


def _called_after_features(model: nn.Module) -> list[str]:
    """Return top-level modules that the network calls after `forward_features`, in order; at a size that it takes."""
    children = {name for name, _ in model.named_children()}
    in_features = set(trace(model, method="forward_features"))
    return [name for name in trace(model) if name in children and name not in in_features]


def _replace_last_layer(model: nn.Module, info: ModelInfo, head: Head, num_rows: int) -> None:
    """Replace the last dense layer, or the last 1×1 convolution, of a user's own module by the new head."""
    kinds = (nn.Linear, nn.Conv2d, HeadModule)
    place = next((name for name in info.head if isinstance(model.get_submodule(name), kinds)), None)
    old = model.get_submodule(place) if place is not None else None
    is_conv = isinstance(old, nn.Conv2d)
    if isinstance(old, nn.Conv2d) and (old.kernel_size, old.groups) != ((1, 1), 1):
        old = None
    reason = _no_place(old, head, is_conv=is_conv)
    if reason or place is None or old is None:
        raise SettingsError(
            f"{info.architecture!r} is a module that regraft does not know, {reason}.",
            "a module that ends in a dense layer or in a 1x1 convolution, and a head without `pool`",
            "leave `head.pool` out, or build the head into the module and pass it to train without adapt",
        )
    parent, _, name = place.rpartition(".")
    setattr(model.get_submodule(parent), name, _last_layer_for(old, head, num_rows))
    info.origin.new_layers = (place,)


def _no_place(old: nn.Module | None, head: Head, *, is_conv: bool) -> str:
    """Return why the head cannot take the place of this layer; empty where it can."""
    if old is None:
        return "and it has no last dense layer" + (", nor a last convolution of one pixel" if is_conv else "")
    if head.pool is not None:
        return "so its pooling cannot be replaced"
    if is_conv and (head.hidden or head.dropout):
        return "and its last layer is a convolution, which takes no hidden layers and no dropout"
    return ""


def _last_layer_for(old: nn.Module, head: Head, num_rows: int) -> nn.Module:
    if isinstance(old, nn.Conv2d):
        new = nn.Conv2d(old.in_channels, num_rows, 1, bias=old.bias is not None)
        new.stride, new.padding = old.stride, old.padding
        return new
    width = old.feature_shape[0] if isinstance(old, HeadModule) else int(old.in_features)  # type: ignore[arg-type]
    if head.is_plain and not head.dropout:
        return nn.Linear(width, num_rows)
    return HeadModule(head, (width,), num_rows)
