"""Small networks for segmentation, and a VGG-like file."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

import regraft as rg

SMALL = "test_resnet"  # of timm: feature maps of the strides 2 to 32, a few thousand parameters


def narrow(model: nn.Module, by: int = 16) -> nn.Module:
    """Divide the channels of all layers but the image's and the classes' by a number, in place, with random weights."""
    torch.manual_seed(0)
    for name, layer in model.named_modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            layer.in_channels = layer.in_channels if layer.in_channels == 3 else layer.in_channels // by
            layer.out_channels = layer.out_channels if name == "classifier" else layer.out_channels // by
            widths = (layer.out_channels, layer.in_channels)
            widths = widths[::-1] if isinstance(layer, nn.ConvTranspose2d) else widths
            layer.weight = nn.Parameter(torch.randn(*widths, *layer.kernel_size) * (2 / (9 * widths[1])) ** 0.5)
            if layer.bias is not None:
                layer.bias = nn.Parameter(torch.randn(layer.out_channels) * 0.1)
        elif isinstance(layer, nn.BatchNorm2d):
            layer.num_features //= by
            layer.weight = nn.Parameter(torch.rand(layer.num_features) + 0.5)
            layer.bias = nn.Parameter(torch.randn(layer.num_features) * 0.1)
            layer.running_mean = torch.randn(layer.num_features) * 0.1
            layer.running_var = torch.rand(layer.num_features) + 0.5
    return model


def vgg_unet(**arguments: Any) -> nn.Module:
    """A U-Net on a VGG16 of a sixteenth of its width."""
    return narrow(rg.build_model("unet", classes=3, **arguments)).eval()


def vgg_segnet(**arguments: Any) -> nn.Module:
    """A SegNet on a VGG16 of a sixteenth of its width."""
    return narrow(rg.build_model("segnet", classes=3, **arguments)).eval()
