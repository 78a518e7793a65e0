"""The encoder of a segmentation network: a classification network cut behind the last feature map that is used.

It is timm's own network with timm's own names (or a form of keras.applications), run by `forward_intermediates`; what
follows the last map is taken away. So weights made for the whole network fit it tensor by tensor.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import timm
import torch
from torch import nn
from torch.func import functional_call

from regraft.data.decode.preprocess import Preprocessing
from regraft.errors import RegraftError, SettingsError, nearest
from regraft.models.describe.info import ModelInfo
from regraft.models.keras_forms.forms import FORMS, build_form
from regraft.models.keras_forms.rows import Row, keras_rows

__all__ = ["MAX_DEPTH", "Encoder", "Level", "build_encoder", "is_vgg", "source_network"]

MIN_DEPTH, MAX_DEPTH = 2, 5
_COARSEST = 32  # feature maps coarser than this are no resolution of the U-Net
_LISTED = ("vgg16", "vgg19")  # timm's networks whose rows Keras lists one for one


@dataclass(frozen=True)
class Level:
    """One feature map of a network.

    Attributes:
        index: Its place in timm's `feature_info`.
        channels: Its channels.
        reduction: How many pixels of the image lie along one of its own, in each direction.
        module: The module that gives it.
    """

    index: int
    channels: int
    reduction: int
    module: str


@dataclass(frozen=True)
class Encoder:
    """A network cut to be an encoder, and what must be known about it.

    Attributes:
        network: The network without what follows its last map.
        levels: The feature maps that are used, finest first.
        least: The smallest side in pixels, a multiple of the stride, that the network takes.
        sides: The side of each map of such an image, in the order of `levels`.
        preprocessing: What its weights were trained with; None where `pretrained_cfg` says it.
        keras_rows: Keras's listing of the whole network, where there is one; modules that were cut off are None.
    """

    network: nn.Module
    levels: tuple[Level, ...]
    least: int
    sides: tuple[int, ...]
    preprocessing: Preprocessing | None
    keras_rows: tuple[Row, ...]

    @property
    def stride(self) -> int:
        """What the sides of an image must be multiples of."""
        return math.lcm(*(level.reduction for level in self.levels))

    def describe(self, name: str) -> dict[str, Any]:
        """Return a timm-like `pretrained_cfg` of the whole network, whose encoder is the submodule `name`."""
        config = {**getattr(self.network, "pretrained_cfg", {})}
        stem = config.get("first_conv") or ()
        stems = [f"{name}.{layer}" for layer in ([stem] if isinstance(stem, str) else stem)]
        keys = ("input_size", "mean", "std", "interpolation")
        return {
            **{key: config[key] for key in keys if key in config},
            "classifier": "classifier",
            "first_conv": stems[0] if len(stems) == 1 else stems,
        }


def source_network(name: str, *, in_chans: int = 3, arguments: Mapping[str, Any] | None = None) -> nn.Module:
    """Return the whole classification network that an encoder is cut from, and that its weights were made for.

    Args:
        name: A timm name, with or without a tag, or a name of `FORMS` (`keras_vgg16`).
        in_chans: Channels of the images.
        arguments: Further arguments of the network.

    Raises:
        SettingsError: There is no such network, or it does not take the arguments.
    """
    options = {"in_chans": in_chans, **(arguments or {})}
    if name not in FORMS and not timm.is_model(name):
        near = nearest(name, [*timm.list_models(), *FORMS])
        raise SettingsError(
            f"There is no encoder {name!r}{f'; did you mean {near}?' if near else '.'}",
            "" if near else "the name of a convolutional network of timm",
            "`regraft models 'resnet*'` to list names by pattern",
        )
    try:
        network: nn.Module = build_form(name, **options) if name in FORMS else timm.create_model(name, **options)
    except RegraftError:
        raise
    except Exception as error:  # an architecture raises whatever its own code raises on an argument
        raise SettingsError(
            f"The encoder {name!r} does not take these arguments ({type(error).__name__}: {error}).",
            "arguments of the network, as timm spells them",
            "leave out the one that the message names",
        ) from error
    return network


def is_vgg(name: str) -> bool:
    """Return whether a network is a VGG: blocks of convolutions, each but the last followed by a pooling of 2×2
    pixels.
    """
    return name.removeprefix("keras_").startswith("vgg")


def build_encoder(
    name: str, depth: int | None, *, in_chans: int = 3, arguments: Mapping[str, Any] | None = None
) -> Encoder:
    """Cut a network behind the `depth`-th of its feature maps.

    A VGG's maps have the strides 1, 2, 4, 8 and 16: the last one is that of `block5_conv3`, before the fifth pooling.
    Other networks begin at stride 2 (or 4, where their first layer already strides by 4).

    Args:
        name: As in `source_network`.
        depth: How many feature maps are used; None takes all that there are, at most 5.
        in_chans: Channels of the images.
        arguments: Further arguments of the network.

    Raises:
        SettingsError: No such network, one without feature maps of falling size, or with fewer than `depth`.
    """
    # A VGG's dense layers are cut off at once: narrow ones need not be drawn for seconds.
    narrow = {"mlp_ratio": 1 / 4096} if is_vgg(name) else {}
    network = source_network(name, in_chans=in_chans, arguments={**narrow, **(arguments or {})}).eval()
    levels = _levels(network, name)
    if depth is not None and not MIN_DEPTH <= depth <= len(levels):
        raise SettingsError(
            f"depth is {depth!r}; {name!r} has feature maps of the strides "
            f"{', '.join(str(level.reduction) for level in levels)}.",
            f"a number from {MIN_DEPTH} to {len(levels)}: how many of them are used, from the finest on",
            f"set depth to {min(max(depth, MIN_DEPTH), len(levels)) if isinstance(depth, int) else len(levels)}, "
            "or leave it out",
        )
    levels = levels[:depth]
    info = getattr(network, "regraft_info", None)
    _drop_head(network, [level.index for level in levels])
    return Encoder(
        network,
        levels,
        *_least(network, name, levels, in_chans),
        info.preprocessing if isinstance(info, ModelInfo) else None,
        _rows(network, name, info),
    )


def _drop_head(network: nn.Module, indices: list[int]) -> None:
    """Take away, in place, what follows the last of these feature maps."""
    network.prune_intermediate_layers(indices, prune_norm=True, prune_head=True)  # type: ignore[operator]
    if hasattr(network, "regraft_info"):
        del network.regraft_info  # it described the whole network


def _levels(network: nn.Module, name: str) -> tuple[Level, ...]:
    info: Any = getattr(network, "feature_info", None) or ()
    entries = [entry for entry in getattr(info, "info", info) if isinstance(entry, dict)]
    found = [
        Level(index, int(entry["num_chs"]), int(entry["reduction"]), str(entry["module"]))
        for index, entry in enumerate(entries)
    ]
    finest = 1 if is_vgg(name) else 2
    levels = [level for level in found if finest <= level.reduction <= _COARSEST][:MAX_DEPTH]
    falling = all(a.reduction < b.reduction for a, b in pairwise(levels))
    if len(levels) < MIN_DEPTH or not falling or not hasattr(network, "forward_intermediates"):
        raise SettingsError(
            f"{name!r} cannot be an encoder: it gives no feature maps of falling size.",
            "a convolutional network, as vgg16, resnet34 or tf_efficientnet_lite0",
            "choose another encoder",
        )
    return tuple(levels)


def _least(network: nn.Module, name: str, levels: tuple[Level, ...], in_chans: int) -> tuple[int, tuple[int, ...]]:
    """Return the smallest multiple of the stride at which the network runs, and the sides of its maps there.

    It may be more than the stride, because convolutions may take borders away.
    """
    stride = math.lcm(*(level.reduction for level in levels))
    named = [*network.named_parameters(), *network.named_buffers()]
    shapes = {key: torch.empty_like(tensor, device="meta") for key, tensor in named}
    for times in range(1, 9):
        image = torch.zeros((1, in_chans, times * stride, times * stride), device="meta")
        try:
            maps = functional_call(_Maps(network, levels), {f"network.{k}": v for k, v in shapes.items()}, (image,))
        except Exception:  # a network raises whatever its own code raises on an image that it does not take
            continue
        return times * stride, tuple(int(cut.shape[-1]) for cut in maps)
    raise SettingsError(
        f"{name!r} cannot be an encoder: it takes images of one size alone.",
        "a convolutional network, as vgg16, resnet34 or tf_efficientnet_lite0",
        "choose another encoder",
    )


class _Maps(nn.Module):
    """A network's feature maps as the result of a module, because `functional_call` calls `forward` alone."""

    def __init__(self, network: nn.Module, levels: tuple[Level, ...]) -> None:
        super().__init__()
        self.network = network
        self.indices = [level.index for level in levels]

    def forward(self, images: torch.Tensor) -> Any:
        return self.network.forward_intermediates(images, indices=self.indices, intermediates_only=True)  # type: ignore[operator]


def _rows(network: nn.Module, name: str, info: Any) -> tuple[Row, ...]:
    """Return Keras's rows of the whole network; those that were cut off stay as rows without weights."""
    plain_name = name.partition(".")[0]
    if isinstance(info, ModelInfo):
        rows = info.origin.keras_rows
    else:
        rows = keras_rows(plain_name) if plain_name in _LISTED else ()
    there = {module for module, _ in network.named_modules()}
    return tuple((row, kind, module if module in there else None) for row, kind, module in rows)
