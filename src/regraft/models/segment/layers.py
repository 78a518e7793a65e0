"""What decoders are made of: convolutions with their norm and activation, initialised by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from regraft.errors import SettingsError

__all__ = ["INITS", "ConvBlock", "PyramidPooling", "initialise"]

# K. He et al., "Delving Deep into Rectifiers", 2015; X. Glorot, Y. Bengio, "Understanding the difficulty of training
# deep feedforward neural networks", 2010. The names are Keras's.
INITS: dict[str, Callable[[Tensor], Any]] = {
    "he_normal": lambda weight: nn.init.kaiming_normal_(weight, nonlinearity="relu"),
    "he_uniform": lambda weight: nn.init.kaiming_uniform_(weight, nonlinearity="relu"),
    "glorot_normal": nn.init.xavier_normal_,
    "glorot_uniform": nn.init.xavier_uniform_,
}


class ConvBlock(nn.Module):
    """Convolutions of 3×3 pixels, each with batch normalisation (if wanted) and ReLU; the size of the map stays.

    Layers are called `conv1`, `bn1`, `conv2`, ... in the order of execution, or as `names` says.

    Args:
        channels: Channels of the input, then of each convolution's output.
        batch_norm: Whether each convolution is normalised; it then has no bias.
        names: The number in the name of each convolution; None counts from 1.
    """

    def __init__(self, *channels: int, batch_norm: bool, names: tuple[int, ...] | None = None) -> None:
        super().__init__()
        self.numbers = names or tuple(range(1, len(channels)))
        for number, width, out in zip(self.numbers, channels, channels[1:], strict=False):
            self.add_module(f"conv{number}", nn.Conv2d(width, out, 3, padding=1, bias=not batch_norm))
            if batch_norm:
                self.add_module(f"bn{number}", nn.BatchNorm2d(out))
        self.batch_norm = batch_norm

    def forward(self, maps: Tensor) -> Tensor:
        """Turn (N, C, H, W) into (N, C', H, W)."""
        for number in self.numbers:
            maps = self.get_submodule(f"conv{number}")(maps)
            if self.batch_norm:
                maps = self.get_submodule(f"bn{number}")(maps)
            maps = F.relu(maps, inplace=True)
        return maps


class PyramidPooling(nn.Module):
    """The map beside its means over coarse grids, convolved: each place sees what the whole image holds.

    The branches have no batch norm: a grid of one cell would give it a value for each image.
    Source: H. Zhao et al., "Pyramid Scene Parsing Network", 2017.
    """

    def __init__(self, width: int, filters: int, grids: Sequence[int], *, batch_norm: bool) -> None:
        super().__init__()
        self.grids = tuple(grids)
        narrow = max(1, filters // len(self.grids))
        for number in range(1, len(self.grids) + 1):
            self.add_module(f"conv{number}", nn.Conv2d(width, narrow, 1))
        self.convs = ConvBlock(width + narrow * len(self.grids), filters, batch_norm=batch_norm)

    def forward(self, maps: Tensor) -> Tensor:
        """Turn (N, C, H, W) into (N, filters, H, W)."""
        size, parts = maps.shape[-2:], [maps]
        for number, side in enumerate(self.grids, start=1):
            pooled = F.relu(self.get_submodule(f"conv{number}")(F.adaptive_avg_pool2d(maps, side)))
            parts.append(F.interpolate(pooled, size=size, mode="bilinear", align_corners=False))
        blended: Tensor = self.convs(torch.cat(parts, dim=1))
        return blended


def initialise(module: nn.Module, init: str) -> None:
    """Draw the kernels of all convolutions inside, in place, as `init` says; biases become zero.

    Raises:
        SettingsError: There is no such initialisation.
    """
    if init not in INITS:
        raise SettingsError(
            f"There is no initialisation {init!r}.",
            f"one of: {', '.join(INITS)}",
            "set `init` to one of them, or leave it out for he_normal",
        )
    for layer in module.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            is_transposed = isinstance(layer, nn.ConvTranspose2d)
            INITS[init](layer.weight.transpose(0, 1) if is_transposed else layer.weight)  # (outputs, inputs, ...)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
