"""What a segmentation network says about itself: its parts, the rows of its encoder, what is new in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from regraft.models.describe.info import ModelInfo, set_info
from regraft.models.describe.provenance import Provenance, SourceNetwork
from regraft.models.segment.encoder import Encoder

__all__ = ["ENCODER", "described"]

ENCODER = "encoder"  # the submodule that holds the encoder


def described(
    model: nn.Module, architecture: str, name: str, encoder: Encoder, arguments: Mapping[str, Any] | None
) -> nn.Module:
    """Store the description on the model, in place, and return the model.

    Args:
        model: A network with the submodules `encoder`, `decoder` and `classifier`.
        architecture: Its name.
        name: The name of its encoder's network.
        encoder: The encoder that it was made of.
        arguments: Further arguments of the encoder's network.
    """
    modules = {module for module, _ in model.named_modules()}
    stages = [f"{ENCODER}.{level.module}" for level in encoder.levels]
    rows = tuple((row, kind, module and f"{ENCODER}.{module}") for row, kind, module in encoder.keras_rows)
    info = ModelInfo(
        architecture=architecture,
        preprocessing=encoder.preprocessing,
        head=("classifier",),
        feature_stages=tuple(stage for stage in stages if stage in modules),
        decoder=("decoder",),
        output="segmentation",
        origin=Provenance(
            encoder=SourceNetwork(name, dict(arguments or {})),
            new_layers=("decoder", "classifier"),
            keras_rows=rows,
        ),
    )
    return set_info(model, info)
