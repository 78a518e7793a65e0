"""MobileNet, MobileNetV2 and EfficientNetB0 of keras.applications on timm's modules.

Keras's MobileNet pads the depthwise convolutions that halve the map by one row and column at the end, at any size.
Its EfficientNet takes pixels (0 to 255) and normalises them itself.
Source: keras/src/applications/{mobilenet,mobilenet_v2,efficientnet}.py.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from timm.models.efficientnet import EfficientNet
from torch import Tensor, nn

__all__ = ["KerasEfficientNet", "Normalization", "PadEndConv2d", "to_keras_efficientnet", "to_keras_mobilenet"]

_IMAGENET_STD = (0.229, 0.224, 0.225)
_TINY = 1e-7  # keras.backend.epsilon()


class PadEndConv2d(nn.Conv2d):
    """A convolution behind Keras's `ZeroPadding2D(((0, 1), (0, 1)))`."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(F.pad(input, (0, 1, 0, 1)))


class Normalization(nn.Module):
    """Keras's `Rescaling(1 / 255)` and `Normalization`: pixels (N, C, H, W) on the scale 0 to 255 -> normalised.

    Args:
        channels: Channels of the images.
        rescaling: Whether Keras's further `Rescaling(1 / sqrt(std))` follows, which its network has when it was built
            with `weights="imagenet"`: the variance stored there is the standard deviation.
    """

    running_mean: Tensor
    running_var: Tensor
    deviation: Tensor

    def __init__(self, channels: int, *, rescaling: bool = False) -> None:
        super().__init__()
        self.rescaling = rescaling
        self.register_buffer("running_mean", torch.zeros(channels))
        self.register_buffer("running_var", torch.ones(channels))
        # Keras's `count` of adapted images, which counts as a parameter there; under torch's name for such counters.
        self.register_buffer("num_batches_tracked", torch.zeros(()))
        self.register_buffer("deviation", torch.tensor((_IMAGENET_STD * channels)[:channels]), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        shape = (1, -1, 1, 1)
        scale = self.running_var.sqrt().clamp(min=_TINY)
        if self.rescaling:
            scale = scale * self.deviation.sqrt()
        return (images / 255 - self.running_mean.reshape(shape)) / scale.reshape(shape)

    @property
    def lacks_rescaling(self) -> bool:
        """Whether its values are those of `weights="imagenet"`, and the scaling that belongs to them is off."""
        same = torch.allclose(self.running_var.cpu(), self.deviation.cpu(), rtol=1e-4)
        return same and not self.rescaling


class KerasEfficientNet(EfficientNet):  # type: ignore[misc]
    """timm's EfficientNet behind a `Normalization`; images (N, 3, H, W) on the scale 0 to 255."""

    normalization: Normalization

    def forward_features(self, x: Tensor) -> Tensor:
        features: Tensor = super().forward_features(self.normalization(x))
        return features

    def forward_intermediates(self, x: Tensor, *args: Any, **kwargs: Any) -> Any:
        return super().forward_intermediates(self.normalization(x), *args, **kwargs)


def to_keras_mobilenet(model: nn.Module) -> None:
    """Pad the depthwise convolutions of stride 2 at the end alone, in place."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d) and module.groups > 1 and module.stride == (2, 2):
            module.__class__ = PadEndConv2d
            module.padding = (0, 0)


def to_keras_efficientnet(model: nn.Module, *, rescaling: bool) -> None:
    """Put the normalisation in front, in place."""
    stem: nn.Conv2d = model.conv_stem  # type: ignore[assignment]
    model.__class__ = KerasEfficientNet
    model.add_module("normalization", Normalization(stem.in_channels, rescaling=rescaling))
