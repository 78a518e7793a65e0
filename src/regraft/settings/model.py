"""The settings of the network: which one, with which weights, and how these are matched."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from regraft.settings.strict import Count, Pixels, Seed, Strict

__all__ = ["AUTO_MODEL", "DEFAULT_MODEL", "LARGER_MODEL", "ChannelsSettings", "MatchSettings", "ModelSettings"]

DEFAULT_MODEL = "tf_efficientnet_lite0"
LARGER_MODEL = "tf_efficientnet_lite2"  # what a budget takes that has time for it: `assembly/choosing.py`
AUTO_MODEL = "auto"  # the one that suits the images best, of those with weights on this machine


class MatchSettings(Strict):
    """How the weights are matched, beside the rules; as in `rg.match_weights`."""

    map: dict[str, str] = Field(default_factory=dict, description="{name in the model: name in the file}")
    flip_stem: bool = Field(False, description="reverse the stem's input channels (BGR file, RGB network)")
    adapt_input: bool = Field(False, description="let the stem have another number of input channels than the file's")
    class_order: list[int] | None = Field(None, description="for each class its row in the file's classifier")
    key: str | None = Field(None, description="which set of tensors, or which prefix, where the file has several")
    in_order: bool = Field(False, description="take a PyTorch file's order of definition as that of execution")


class ChannelsSettings(Strict):
    """One change of a network's input channels."""

    in_channels: Count | None = Field(None, description="channels before this change")
    bands: list[str] | None = Field(None, description="names of the channels before this change")


class ModelSettings(Strict):
    """Which network, with which weights, at which image size."""

    name: str = Field(DEFAULT_MODEL, description="a timm name, `alexnet`, `keras_NAME`, `keras:NAME`, or `auto`")
    weights: str = Field(
        "pretrained",
        description="a weights file, a run or its model folder, modelscope:OWNER/NAME/FILE, `pretrained` or `none`",
    )
    skip: list[str] = Field(default_factory=list, description="patterns of tensors in the file to leave out")
    match: MatchSettings | None = Field(None, description="how the weights are matched, beside the rules")
    image_size: Pixels | tuple[Pixels, Pixels] | None = Field(None, description="side, or [height, width], in pixels")
    in_channels: Count | None = Field(None, description="channels of the images; the pretrained stem is kept")
    bands: list[str] | None = Field(None, description="names of the channels; those of the stem keep their kernels")
    channels_before: list[ChannelsSettings] = Field(
        default_factory=list, description="changes of the channels that came before this one"
    )
    seed: Seed | None = Field(None, description="seed of the new layers; null: the run's")
    args: dict[str, Any] = Field(default_factory=dict, description="further arguments of the architecture")
