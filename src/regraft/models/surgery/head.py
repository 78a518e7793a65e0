"""The modules of a network's new head, as `regraft.settings.head` describes it."""

from __future__ import annotations

from collections.abc import Sequence

from timm.layers import SelectAdaptivePool2d
from torch import Tensor, nn

from regraft.settings.head import Head

__all__ = ["HeadModule", "TopModule"]

_POOLS = {"avg": "avg", "max": "max", "avgmax": "catavgmax"}
_ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh}


class HeadModule(nn.Sequential):
    """Feature map (N, C, H, W) -> logits (N, num_logits).

    Args:
        head: What it looks like.
        feature_shape: (C, H, W) of the feature map, or (C,) when the network pools by itself.
        num_logits: Number of logits.
    """

    def __init__(self, head: Head, feature_shape: Sequence[int], num_logits: int) -> None:
        super().__init__()
        self.feature_shape = tuple(feature_shape)
        width = self._add_pool(head)
        for index, hidden in enumerate(head.hidden):
            self.add_module(f"hidden{index + 1}", nn.Linear(width, hidden))
            self.add_module(f"act{index + 1}", _ACTIVATIONS[head.activation]())
            if head.dropout:
                self.add_module(f"drop{index + 1}", nn.Dropout(head.dropout))
            width = hidden
        if head.dropout and not head.hidden:
            self.add_module("drop", nn.Dropout(head.dropout))
        self.add_module("classifier", nn.Linear(width, num_logits))

    def _add_pool(self, head: Head) -> int:
        channels = self.feature_shape[0]
        if len(self.feature_shape) == 1:
            return channels
        if head.pool == "flatten":
            self.add_module("pool", nn.Flatten())
            return int(channels * self.feature_shape[1] * self.feature_shape[2])
        pool = head.pool or "avg"
        self.add_module("pool", SelectAdaptivePool2d(pool_type=_POOLS[pool], flatten=True))
        return channels * (2 if pool == "avgmax" else 1)

    def forward(self, features: Tensor) -> Tensor:
        logits: Tensor = super().forward(features)  # type: ignore[no-untyped-call]
        return logits


class TopModule(nn.Module):
    """What stands instead of a head that was left out: feature map (N, C, H, W) -> the map, or features (N, C).

    Args:
        pooling: `avg` or `max` over the map; None hands it on.
    """

    def __init__(self, pooling: str | None) -> None:
        super().__init__()
        self.pool = nn.Identity() if pooling is None else SelectAdaptivePool2d(pool_type=pooling, flatten=True)

    def forward(self, features: Tensor) -> Tensor:
        output: Tensor = self.pool(features)
        return output
