"""Narrow networks, as their own library and as timm is told of them."""

from __future__ import annotations

from typing import Any

__all__ = ["DIMS", "DIMS_TIMM", "LAYERS", "RESNET_18", "RESNET_50", "SWIN", "SWIN_TIMM", "VIT", "VIT_TIMM"]

VIT: dict[str, Any] = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 96,
    "image_size": 32,
    "patch_size": 8,
}
VIT_TIMM: dict[str, Any] = {"embed_dim": 24, "num_heads": 2, "depth": 2, "img_size": 32, "patch_size": 8}
DIMS = {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 2, 1]}
DIMS_TIMM: dict[str, Any] = {"dims": (8, 8, 16, 16), "depths": (1, 1, 2, 1)}
SWIN: dict[str, Any] = {
    "image_size": 32,
    "patch_size": 2,
    "embed_dim": 8,
    "depths": [2, 2],
    "num_heads": [2, 2],
    "window_size": 4,
}
SWIN_TIMM: dict[str, Any] = {
    "img_size": 32,
    "patch_size": 2,
    "embed_dim": 8,
    "depths": (2, 2),
    "num_heads": (2, 2),
    "window_size": 4,
    "num_classes": 2,
}
RESNET_18 = {"embedding_size": 64, "hidden_sizes": [8, 8, 16, 16], "depths": [1, 2, 1, 2], "layer_type": "basic"}
RESNET_50 = {"embedding_size": 64, "hidden_sizes": [32, 32, 64, 64], "depths": [1, 2, 1, 2]}
LAYERS = {"layers": (1, 2, 1, 2), "num_classes": 2}
