"""Networks of timm below the names that frameworks for training put before theirs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from tests.oracle.pairs.shapes import DIMS_TIMM, LAYERS, SWIN_TIMM, VIT_TIMM
from tests.oracle.pairs.weight_pair import Network, Pair, timm_
from torch import nn

__all__ = ["WRAPPED_PAIRS"]


def _wrapped(framework: str, target: tuple[str, Network], wrap: Callable[[dict[str, Any]], Any], **how: Any) -> Pair:
    def write(model: nn.Module, folder: Path) -> Path:
        torch.save(wrap(dict(model.state_dict())), folder / "checkpoint.pth")
        return folder / "checkpoint.pth"

    return Pair(framework, target[0], target[0], target[1], write=write, build=target[1], **how)


def _below(prefix: str, state: Mapping[str, Any]) -> dict[str, Any]:
    return {prefix + name: tensor for name, tensor in state.items()}


def _underscored(name: str) -> str:
    path, _, leaf = name.rpartition(".")
    return f"{path.replace('.', '_')}.{leaf}"


def _other(state: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tensor + 1 if tensor.is_floating_point() else tensor for name, tensor in state.items()}


def _projector(prefix: str, width: int = 24) -> dict[str, Any]:
    return {
        f"{prefix}.0.weight": torch.ones(width, width),
        f"{prefix}.0.bias": torch.ones(width),
        f"{prefix}.2.weight": torch.ones(8, width),
        f"{prefix}.2.bias": torch.ones(8),
    }


_WRAPPERS: list[tuple[str, Callable[[dict[str, Any]], Any], dict[str, Any]]] = [
    ("Lightning", lambda state: {"state_dict": _below("model.", state), "epoch": 3, "global_step": 9}, {}),
    ("DDP and torch.compile", lambda state: _below("module._orig_mod.", state), {}),
    ("SwAV", lambda state: _below("module.", state | _projector("projection_head") | {"prototypes.weight":
        torch.ones(4, 8)}), {}),
    ("BYOL", lambda state: _below("online_network.encoder.", state) | _projector("online_network.projector"), {}),
    ("SimCLR", lambda state: _below("backbone.", state) | _projector("projector") | _projector("predictor", 8), {}),
    ("MoCo", lambda state: _below("encoder_q.", state) | _below("encoder_k.", _other(state)),
        {"refused": "--from encoder_q"}),
    ("MoCo (--from)", lambda state: _below("encoder_k.", _other(state)) | _below("encoder_q.", state),
        {"options": {"key": "encoder_q"}}),
    ("DINO's teacher", lambda state: {"teacher": _below("backbone.", state) | _projector("head.mlp")}, {}),
]  # fmt: skip
_SPELLINGS: list[tuple[str, Callable[[dict[str, Any]], Any], dict[str, Any]]] = [
    ("torch.fx (underscores)", lambda state: {_underscored(name): tensor for name, tensor in state.items()}, {}),
    ("flat names", lambda state: {name.replace(".", "_"): tensor for name, tensor in state.items()}, {}),
]
_WRAPPED_NETWORKS: list[tuple[tuple[str, Network], dict[str, Any]]] = [
    (timm_("resnet18", channels=(8, 8, 16, 16), **LAYERS), {}),
    (timm_("convnext_tiny", **DIMS_TIMM, num_classes=3), {}),
    (timm_("vit_tiny_patch16_224", **VIT_TIMM, num_classes=3), {"size": 32}),
    (timm_("vit_small_patch14_dinov2", **VIT_TIMM, num_classes=3), {"size": 32}),
    (timm_("swin_tiny_patch4_window7_224", **SWIN_TIMM), {"size": 32}),
    (timm_("mobilenetv3_small_050", num_classes=3), {}),
]
WRAPPED_PAIRS = [
    _wrapped(framework, network, wrap, **{**how, **expected})
    for framework, wrap, expected in _WRAPPERS
    for network, how in _WRAPPED_NETWORKS
] + [
    _wrapped(framework, network, wrap, **{**how, **expected})
    for framework, wrap, expected in _SPELLINGS
    for network, how in (_WRAPPED_NETWORKS[0], _WRAPPED_NETWORKS[5])
]
