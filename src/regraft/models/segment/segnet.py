"""SegNet: the decoder puts each value back to the place from which the encoder's pooling took it.

The encoder is VGG's, its poolings keep the indices of their maxima; the decoder mirrors it, block by block, and its
last convolution is the classifier. With dropout in its central blocks it is the Bayesian SegNet (see `bayes`).
Sources: V. Badrinarayanan, A. Kendall, R. Cipolla, "SegNet: A Deep Convolutional Encoder-Decoder Architecture for Image
Segmentation", 2015; A. Kendall, V. Badrinarayanan, R. Cipolla, "Bayesian SegNet", 2015.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from regraft.errors import SettingsError
from regraft.models.segment.describe import described
from regraft.models.segment.encoder import MAX_DEPTH, Encoder, build_encoder, is_vgg
from regraft.models.segment.layers import INITS, ConvBlock, initialise
from regraft.models.segment.padding import crop_like, pad_to_stride

__all__ = ["SegNet", "pool_with_indices", "segnet", "unpool"]

_FIRST_CENTRAL = 3  # the paper's best variant drops in the three coarsest of five blocks, on both sides


def pool_with_indices(maps: Tensor) -> tuple[Tensor, Tensor]:
    """Turn (N, C, H, W) into the largest value of each 2×2 window, and where it was: y * W + x, for each channel alone.

    Of equal values the first one counts (in the order of rows), as in TensorFlow. Its `max_pool_with_argmax` numbers
    the places of all channels together: (y * W + x) * C + channel.
    """
    pooled, indices = F.max_pool2d(maps, 2, 2, return_indices=True)
    return pooled, indices


def unpool(maps: Tensor, indices: Tensor) -> Tensor:
    """Turn (N, C, H, W) and the indices of the pooling into (N, C, 2H, 2W): each value at its place, zeros
    elsewhere.
    """
    return F.max_unpool2d(maps, indices, (2, 2), (2, 2))


class SegNetDecoder(nn.Module):
    """The encoder's blocks in reverse: `block5` first, its convolutions counted down as in the encoder."""

    def __init__(self, blocks: Sequence[Sequence[int]], *, batch_norm: bool, dropout: float) -> None:
        super().__init__()
        for number in range(len(blocks), 0, -1):
            widths = tuple(reversed(blocks[number - 1]))
            widths = widths if number > 1 else widths[:-1]  # the classifier mirrors the first convolution
            names = tuple(range(len(blocks[number - 1]) - 1, 0, -1))[: len(widths) - 1]
            self.add_module(f"block{number}", ConvBlock(*widths, batch_norm=batch_norm, names=names))
            if dropout and _is_central(number, len(blocks)):
                self.add_module(f"drop{number}", nn.Dropout(dropout))

    def forward(self, maps: Tensor, indices: Sequence[Tensor]) -> Tensor:
        """Return the encoder's last map and the indices of all poolings, finest first -> (N, C, H, W) of the image's
        size.
        """
        for name, layer in self.named_children():
            if name.startswith("block"):
                maps = unpool(maps, indices[int(name.removeprefix("block")) - 1])
            maps = layer(maps)
        return maps


class SegNet(nn.Module):
    """Images (N, C, H, W) of any size -> logits (N, num_classes, H, W).

    Its parts are `encoder` (timm's VGG under timm's names), `decoder` and `classifier` (the head: 3×3 pixels, the
    mirror of the encoder's first convolution).
    """

    classifier: nn.Conv2d

    def __init__(self, encoder: Encoder, num_classes: int, *, batch_norm: bool, init: str, dropout: float) -> None:
        super().__init__()
        self.pretrained_cfg = encoder.describe("encoder")
        self.encoder = encoder.network
        self.encoder.features = _with_last_pool(self.encoder.get_submodule("features"), dropout)
        blocks = _blocks(self.encoder.features)
        self.stride = 2 ** len(blocks)
        self.decoder = SegNetDecoder(blocks, batch_norm=batch_norm, dropout=dropout)
        initialise(self.decoder, init)
        self.num_features = blocks[0][1]
        self.head_drop = nn.Dropout(0.0)
        self.reset_classifier(num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Turn images (N, C, H, W) into logits (N, num_classes, H, W)."""
        maps = pad_to_stride(images, self.stride, self.stride)
        indices = []
        for layer in self.encoder.get_submodule("features").children():
            if isinstance(layer, nn.MaxPool2d):
                maps, places = pool_with_indices(maps)
                indices.append(places)
            else:
                maps = layer(maps)
        logits = self.classifier(self.head_drop(self.decoder(maps, indices)))
        return crop_like(logits, images)

    def reset_classifier(self, num_classes: int) -> None:
        """Put a new classifier instead of the old one."""
        self.num_classes = num_classes
        self.classifier = nn.Conv2d(self.num_features, num_classes, 3, padding=1)
        initialise(self.classifier, "glorot_uniform")


def segnet(
    encoder: str = "vgg16",
    *,
    num_classes: int = 2,
    in_chans: int = 3,
    depth: int = MAX_DEPTH,
    batch_norm: bool = True,
    init: str = "he_normal",
    dropout: float = 0.0,
    encoder_args: Mapping[str, Any] | None = None,
) -> SegNet:
    """Return a `SegNet` that says about itself what regraft needs to know.

    Args:
        encoder: A VGG of timm (`vgg16`, `vgg16_bn`, `vgg19`, ...) or of keras.applications (`keras_vgg16`).
        num_classes: Number of logits of each pixel.
        in_chans: Channels of the images.
        depth: How many of the encoder's five blocks are used, from the finest on.
        batch_norm: Whether the decoder's convolutions are normalised; the encoder's are in `vgg16_bn` alone.
        init: How the decoder is drawn: he_normal, he_uniform, glorot_normal or glorot_uniform.
        dropout: Fraction dropped behind each of the three coarsest blocks of the encoder and of the decoder; above 0
            it is the Bayesian SegNet (0.5 in the paper).
        encoder_args: Further arguments of the encoder's network.

    Raises:
        SettingsError: An encoder that is no VGG, or arguments out of range; all mistakes at once.
    """
    _check(encoder, init, dropout, num_classes)
    cut = build_encoder(encoder, depth, in_chans=in_chans, arguments=encoder_args)
    model = SegNet(cut, num_classes, batch_norm=batch_norm, init=init, dropout=dropout)
    described(model, "segnet", encoder, cut, encoder_args)
    return model


def _with_last_pool(features: nn.Module, dropout: float) -> nn.Sequential:
    """Return the layers of an encoder that was cut behind its last convolution, with the pooling that follows it.

    Dropout is put behind the poolings of the central blocks; all other layers keep their names.
    """
    layers = OrderedDict(features.named_children())
    layers[str(len(layers))] = nn.MaxPool2d(2, 2)
    num_blocks = sum(isinstance(layer, nn.MaxPool2d) for layer in layers.values())
    placed: OrderedDict[str, nn.Module] = OrderedDict()
    block = 0
    for name, layer in layers.items():
        placed[name] = layer
        block += isinstance(layer, nn.MaxPool2d)
        if dropout and isinstance(layer, nn.MaxPool2d) and _is_central(block, num_blocks):
            placed[f"drop{block}"] = nn.Dropout(dropout)
    return nn.Sequential(placed)


def _is_central(block: int, num_blocks: int) -> bool:
    return block >= min(_FIRST_CENTRAL, num_blocks)


def _blocks(features: nn.Module) -> list[list[int]]:
    """Return for each block of a VGG the channels of its input and of each of its convolutions."""
    blocks: list[list[int]] = [[]]
    for layer in features.children():
        if isinstance(layer, nn.Conv2d):
            blocks[-1] += [layer.out_channels] if blocks[-1] else [layer.in_channels, layer.out_channels]
        elif isinstance(layer, nn.MaxPool2d):
            blocks.append([])
    return blocks[:-1]


def _check(encoder: str, init: str, dropout: float, num_classes: int) -> None:
    rules = {
        "encoder": (encoder, is_vgg(encoder), "a VGG, as vgg16, vgg16_bn or vgg19"),
        "init": (init, init in INITS, f"one of: {', '.join(INITS)}"),
        "dropout": (dropout, 0 <= dropout < 1, "at least 0 and less than 1"),
        "num_classes": (num_classes, num_classes >= 1, "at least 1"),
    }
    mistakes = [
        f"{key} is {value!r}; expected {wanted}" for key, (value, is_right, wanted) in rules.items() if not is_right
    ]
    if mistakes:
        raise SettingsError(
            "The SegNet cannot be built as described.", "", "correct these arguments of the model", details=mistakes
        )
