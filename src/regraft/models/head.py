"""The new head of a network: how it pools, its hidden layers, its dropout, what its logits mean."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from timm.layers import SelectAdaptivePool2d
from torch import Tensor, nn

from regraft.errors import SettingsError
from regraft.models.outputs import OUTPUTS

__all__ = ["Head", "HeadModule", "TopModule"]

Pool = Literal["flatten", "avg", "max", "avgmax"]
_POOLS = {"avg": "avg", "max": "max", "avgmax": "catavgmax"}
_ACTIVATIONS = {"relu": nn.ReLU, "gelu": nn.GELU, "silu": nn.SiLU, "tanh": nn.Tanh}


@dataclass(frozen=True)
class Head:
    """What a new head looks like.

    Attributes:
        pool: `avg`, `max`, `avgmax` (both, concatenated) or `flatten`; None keeps the network's own pooling.
        hidden: Widths of hidden layers between pooling and the classifier.
        dropout: Fraction dropped before the classifier (after each hidden layer).
        activation: After each hidden layer: relu, gelu, silu or tanh.
        output: `softmax` (one of the classes), `binary` (one logit: the probability of the second of two classes) or
            `multilabel` (any number of the labels, a sigmoid for each).
    """

    pool: Pool | None = None
    hidden: Sequence[int] = ()
    dropout: float = 0.0
    activation: str = "relu"
    output: str = "softmax"

    def __post_init__(self) -> None:
        mistakes = []
        if self.pool not in (None, "flatten", *_POOLS):
            mistakes.append(f"pool is {self.pool!r}; expected one of: flatten, {', '.join(_POOLS)}")
        if any(width < 1 for width in self.hidden):
            mistakes.append(f"hidden is {list(self.hidden)!r}; expected positive widths")
        if not 0 <= self.dropout < 1:
            mistakes.append(f"dropout is {self.dropout!r}; expected at least 0 and less than 1")
        if self.activation not in _ACTIVATIONS:
            mistakes.append(f"activation is {self.activation!r}; expected one of: {', '.join(_ACTIVATIONS)}")
        if self.output not in OUTPUTS:
            mistakes.append(f"output is {self.output!r}; expected one of: {', '.join(OUTPUTS)}")
        if mistakes:
            raise SettingsError(
                "The head cannot be built as described.", "", "Correct these settings of `head`.", details=mistakes
            )

    @property
    def is_plain(self) -> bool:
        """Whether the network's own pooling and one linear layer do, so that timm can build it too."""
        return self.pool is None and not self.hidden

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "hidden": list(self.hidden)}


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
    """What stands in the place of a head that was left out: feature map (N, C, H, W) -> the map, or features (N, C).

    Args:
        pooling: `avg` or `max` over the map; None hands it on.
    """

    def __init__(self, pooling: str | None) -> None:
        super().__init__()
        self.pool = nn.Identity() if pooling is None else SelectAdaptivePool2d(pool_type=pooling, flatten=True)

    def forward(self, features: Tensor) -> Tensor:
        output: Tensor = self.pool(features)
        return output
