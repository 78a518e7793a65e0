"""Encoders of segmentation_models_pytorch."""

from __future__ import annotations

from typing import Any

import torch
from tests.oracle.pairs.weight_pair import Network, Pair, features, timm_, write_state
from torch import nn

__all__ = ["SMP_PAIRS"]


def _smp(encoder: str, target: tuple[str, Network], **how: Any) -> Pair:
    def source() -> nn.Module:
        import segmentation_models_pytorch as smp

        return smp.Unet(encoder, encoder_weights=None)  # type: ignore[no-any-return]

    def deepest(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
        return model.encoder(x)[-1]  # type: ignore[operator,no-any-return]

    return Pair(
        "segmentation_models_pytorch",
        f"Unet({encoder})",
        target[0],
        source,
        write=write_state,
        build=target[1],
        require="backbone",
        **{"output": deepest, "own_output": features, **how},
    )


def _blocks(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return model.blocks(model.bn1(model.conv_stem(x)))  # type: ignore[operator,no-any-return]


SMP_PAIRS = [
    _smp("resnet18", timm_("resnet18")),
    _smp("resnet34", timm_("resnet18"), refused="deeper"),
    _smp("mobilenet_v2", timm_("mobilenetv2_100")),
    _smp("tu-resnet18", timm_("resnet18")),
    _smp("efficientnet-b0", timm_("tf_efficientnet_b0"), own_output=_blocks),
    _smp("efficientnet-b0", timm_("efficientnet_b0"), refused="SAME"),
    _smp("densenet121", timm_("densenet121"), output=lambda model, x: torch.relu(model.encoder(x)[-1])),
]
