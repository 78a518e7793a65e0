"""U-Net on a pretrained encoder: up, concatenate with the encoder's map of that size, convolve; then a 1×1 classifier.

On VGG16 the skips are block1_conv2, block2_conv2, block3_conv3 and block4_conv3, and the centre is block5_conv3: the
fifth pooling is left out. On other networks the finest map has stride 2 (or 4), and the logits are brought to the
image's size by bilinear interpolation. Images may have any size (see `padding`).
Sources: O. Ronneberger, P. Fischer, T. Brox, "U-Net: Convolutional Networks for Biomedical Image Segmentation", 2015;
its context module: H. Zhao et al., "Pyramid Scene Parsing Network", 2017.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regraft.errors import SettingsError
from regraft.models.segment.describe import described
from regraft.models.segment.encoder import Encoder, build_encoder
from regraft.models.segment.layers import INITS, ConvBlock, PyramidPooling, initialise
from regraft.models.segment.padding import crop_like, pad_to_stride

__all__ = ["FILTERS", "UNet", "Up", "unet"]

Up = Literal["nearest", "bilinear", "transposed"]
FILTERS = (256, 128, 64, 32)


class UNetStage(nn.Module):
    """One step up: the coarser map is brought to the skip's size, joined to it and convolved."""

    def __init__(self, width: int, skip: int, filters: int, *, convs: int, batch_norm: bool, up: Up) -> None:
        super().__init__()
        self.up = up
        if up == "transposed":
            self.upconv = nn.ConvTranspose2d(width, filters, 2, stride=2)
            width = filters
        self.convs = ConvBlock(width + skip, *(filters,) * convs, batch_norm=batch_norm)

    def forward(self, maps: Tensor, skip: Tensor) -> Tensor:
        """Turn (N, C, H/2, W/2) and (N, S, H, W) into (N, filters, H, W)."""
        if self.up == "transposed":
            maps = self.upconv(maps)
        else:
            corners = {"align_corners": False} if self.up == "bilinear" else {}
            maps = F.interpolate(maps, size=skip.shape[-2:], mode=self.up, **corners)
        blended: Tensor = self.convs(torch.cat([maps, skip], dim=1))
        return blended


class UNetDecoder(nn.Module):
    """The stages in the order of execution: `stage1` joins the second coarsest map, the last one the finest; before
    them, where it is wanted, the `context` of the coarsest map.
    """

    def __init__(
        self,
        channels: Sequence[int],
        filters: Sequence[int],
        *,
        convs: int,
        batch_norm: bool,
        up: Up,
        pyramid: Sequence[int],
    ) -> None:
        super().__init__()
        self.context = PyramidPooling(channels[-1], filters[0], pyramid, batch_norm=batch_norm) if pyramid else None
        self.stages = [f"stage{number}" for number in range(1, len(filters) + 1)]
        widths = (filters[0] if pyramid else channels[-1], *filters)
        for number, (width, skip, out) in enumerate(zip(widths, channels[-2::-1], filters, strict=False), start=1):
            self.add_module(f"stage{number}", UNetStage(width, skip, out, convs=convs, batch_norm=batch_norm, up=up))

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Turn feature maps, finest first into (N, filters[-1], H, W) of the finest."""
        blended = maps[-1] if self.context is None else self.context(maps[-1])
        for stage, skip in zip(self.stages, reversed(maps[:-1]), strict=True):
            blended = self.get_submodule(stage)(blended, skip)
        return blended


class UNet(nn.Module):
    """Images (N, C, H, W) of any size -> logits (N, num_classes, H, W).

    Its parts are `encoder` (timm's network under timm's names), `decoder` and `classifier` (the head).
    """

    classifier: nn.Conv2d

    def __init__(
        self,
        encoder: Encoder,
        num_classes: int,
        *,
        filters: Sequence[int],
        convs: int,
        batch_norm: bool,
        up: Up,
        init: str,
        dropout: float,
        pyramid: Sequence[int],
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.stride, self.least = encoder.stride, encoder.least
        self.indices = [level.index for level in encoder.levels]
        self.scale = encoder.levels[0].reduction
        self.num_features = filters[-1]
        self.pretrained_cfg = encoder.describe("encoder")
        self.encoder = encoder.network
        channels = [level.channels for level in encoder.levels]
        self.decoder = UNetDecoder(channels, filters, convs=convs, batch_norm=batch_norm, up=up, pyramid=pyramid)
        initialise(self.decoder, init)
        self.head_drop = nn.Dropout(dropout)
        self.reset_classifier(num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Turn images (N, C, H, W) into logits (N, num_classes, H, W)."""
        padded = pad_to_stride(images, self.stride, self.least)
        maps = self.encoder.forward_intermediates(padded, indices=self.indices, intermediates_only=True)  # type: ignore[operator]
        logits: Tensor = self.classifier(self.head_drop(self.decoder(maps)))
        if self.scale > 1:
            # Class by class, in fp32: six times faster on a CPU than bf16 pixels with their classes side by side.
            logits = logits.float().contiguous()
            logits = F.interpolate(logits, size=padded.shape[-2:], mode="bilinear", align_corners=False)
        return crop_like(logits, images)

    def reset_classifier(self, num_classes: int) -> None:
        """Put a new 1×1 classifier instead of the old one."""
        self.num_classes = num_classes
        self.classifier = nn.Conv2d(self.num_features, num_classes, 1)
        initialise(self.classifier, "glorot_uniform")


def unet(
    encoder: str = "vgg16",
    *,
    num_classes: int = 2,
    in_chans: int = 3,
    depth: int | None = None,
    filters: Sequence[int] | None = None,
    convs: int = 2,
    batch_norm: bool = True,
    up: Up = "nearest",
    init: str = "he_normal",
    dropout: float = 0.0,
    pyramid: Sequence[int] = (),
    encoder_args: Mapping[str, Any] | None = None,
) -> UNet:
    """Return a `UNet` that says about itself what regraft needs to know.

    Args:
        encoder: A convolutional network of timm by its name (`vgg16`, `resnet34`, `tf_efficientnet_lite0`), or a form
            of keras.applications (`keras_vgg16`: images in BGR order, minus the mean colour).
        num_classes: Number of logits of each pixel.
        in_chans: Channels of the images.
        depth: How many resolutions are used, 2 to 5; None takes all that the encoder has, at most 5. 5 is the form on
            VGG16 that ends at block5_conv3.
        filters: Output channels of each of the `depth - 1` stages of the decoder, coarsest first; None takes the last
            of 256, 128, 64, 32.
        convs: Convolutions of each stage.
        batch_norm: Whether the decoder's convolutions are normalised.
        up: `nearest` repeats the pixels of the coarser map (Keras's UpSampling2D), `bilinear` interpolates,
            `transposed` learns the step (a transposed convolution of 2×2 pixels, as in the paper).
        init: How the decoder is drawn: he_normal, he_uniform, glorot_normal or glorot_uniform.
        dropout: Fraction dropped before the classifier.
        pyramid: Sides of the grids over which the coarsest map is averaged and joined to it again, so that each place
            sees the whole image: [1, 2, 3, 6] as in the paper; empty: none.
        encoder_args: Further arguments of the encoder's network.

    Raises:
        SettingsError: No such encoder, or arguments that contradict each other; all mistakes at once.
    """
    cut = build_encoder(encoder, depth, in_chans=in_chans, arguments=encoder_args)
    pyramid = tuple(pyramid)
    num_stages = len(cut.levels) - 1
    filters = FILTERS[-num_stages:] if filters is None else tuple(filters)
    _check(encoder, cut, filters, convs, up, init, dropout, num_classes, pyramid)
    model = UNet(
        cut,
        num_classes,
        filters=filters,
        convs=convs,
        batch_norm=batch_norm,
        up=up,
        init=init,
        dropout=dropout,
        pyramid=pyramid,
    )
    described(model, "unet", encoder, cut, encoder_args)
    return model


def _check(
    encoder: str,
    cut: Encoder,
    filters: Sequence[int],
    convs: int,
    up: str,
    init: str,
    dropout: float,
    num_classes: int,
    pyramid: Sequence[int],
) -> None:
    num_stages, mistakes = len(cut.levels) - 1, []
    if len(filters) != num_stages or any(type(width) is not int or width < 1 for width in filters):
        mistakes.append(
            f"filters is {list(filters)!r}; with {num_stages + 1} resolutions of {encoder!r} the decoder has "
            f"{num_stages} stage(s), so it is {num_stages} number(s) from 1 on, coarsest first"
        )
    rules = {
        "convs": (convs, convs >= 1, "at least 1"),
        "up": (up, up in get_args(Up), f"one of: {', '.join(get_args(Up))}"),
        "init": (init, init in INITS, f"one of: {', '.join(INITS)}"),
        "dropout": (dropout, 0 <= dropout < 1, "at least 0 and less than 1"),
        "num_classes": (num_classes, num_classes >= 1, "at least 1"),
    }
    if up == "transposed" and any(fine != 2 * coarse for fine, coarse in pairwise(cut.sides)):
        mistakes.append(
            f"up is transposed, which doubles a map, but the maps of {encoder!r} are not twice as large as the next; "
            "expected nearest or bilinear"
        )
    mistakes += [
        f"{key} is {value!r}; expected {wanted}" for key, (value, is_right, wanted) in rules.items() if not is_right
    ]
    if any(type(side) is not int or side < 1 for side in pyramid):
        mistakes.append(f"pyramid is {list(pyramid)!r}; expected sides of grids, such as [1, 2, 3, 6]")
    if mistakes:
        raise SettingsError(
            "The U-Net cannot be built as described.", "", "correct these arguments of the model", details=mistakes
        )
