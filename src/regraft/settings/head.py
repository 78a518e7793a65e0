"""The form of a network's new head."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Literal

from pydantic import Field

from regraft.settings.strict import Count, ListOf, ShareBelowOne, settings

__all__ = ["Head", "Output", "Pool"]

Pool = Literal["flatten", "avg", "max", "avgmax"]
Output = Literal["softmax", "binary", "multilabel", "segmentation"]


@settings
class Head:
    """The form of a new head."""

    pool: Pool | None = Field(
        default=None,
        description="how the last feature map is pooled, avgmax concatenates both; null: the network's own pooling",
    )
    hidden: ListOf[Count] = Field(default_factory=list, description="widths of hidden layers before the classifier")
    dropout: ShareBelowOne = Field(
        default=0.0, description="dropout rate before the classifier, or after each hidden layer"
    )
    activation: Literal["relu", "gelu", "silu", "tanh"] = Field(
        default="relu", description="activation after each hidden layer"
    )
    output: Output | None = Field(
        default=None,
        description="softmax: one of the classes; binary: one logit for the second of two classes; multilabel: any "
        "number of labels; null: segmentation for images with masks, multilabel for those with several labels, else "
        "softmax",
    )

    @property
    def resolved_output(self) -> Output:
        """The output, which is softmax unless the data or the network decide otherwise."""
        return self.output or "softmax"

    @property
    def is_plain(self) -> bool:
        """Whether the network's own pooling and one linear layer do, so that timm can build it too."""
        return self.pool is None and not self.hidden

    def to_dict(self) -> dict[str, Any]:
        """Return plain data for the model folder."""
        return asdict(self)
