"""The image towers of open_clip."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.oracle.pairs.shapes import VIT_TIMM
from tests.oracle.pairs.weight_pair import Network, Pair, timm_, write_state
from torch import nn

__all__ = ["OPEN_CLIP_PAIRS"]


def _open_clip(name: str, target: tuple[str, Network], vision: dict[str, Any], *, quick: bool, **how: Any) -> Pair:
    def source() -> nn.Module:
        from open_clip.model import CLIP, CLIPTextCfg, CLIPVisionCfg

        text = CLIPTextCfg(context_length=8, vocab_size=16, width=24, heads=2, layers=2)
        return CLIP(8, CLIPVisionCfg(**vision), text, quick_gelu=quick)

    return Pair(
        "open_clip",
        name,
        target[0],
        source,
        build=target[1],
        output=lambda model, x: model.visual(x),  # type: ignore[operator,no-any-return]
        **{"write": write_state, "size": 32, **how},
    )


def _with_clip_config(model: nn.Module, folder: Path) -> Path:
    (folder / "open_clip_config.json").write_text('{"model_cfg": {"embed_dim": 8}}')
    return write_state(model, folder)


_CLIP_VISION = {"layers": 2, "width": 24, "head_width": 12, "mlp_ratio": 4.0, "patch_size": 8, "image_size": 32}
OPEN_CLIP_PAIRS = [
    _open_clip(
        "ViT (QuickGELU)",
        timm_("vit_base_patch32_clip_quickgelu_224", **VIT_TIMM, num_classes=8),
        _CLIP_VISION,
        quick=True,
    ),
    _open_clip(
        "ViT (GELU, with its config)",
        timm_("vit_base_patch32_clip_224", **VIT_TIMM, num_classes=8),
        _CLIP_VISION,
        quick=False,
        write=_with_clip_config,
    ),
    _open_clip(
        "ViT (GELU, with its config)",
        timm_("vit_base_patch32_clip_quickgelu_224", **VIT_TIMM, num_classes=8),
        _CLIP_VISION,
        quick=False,
        write=_with_clip_config,
        refused="activation",
    ),
    _open_clip(
        "ViT (without its config)",
        timm_("vit_base_patch32_clip_224", **VIT_TIMM, num_classes=8),
        _CLIP_VISION,
        quick=False,
        refused="does not tell its own",
    ),
    _open_clip(
        "ResNet",
        timm_("resnet50_clip", num_classes=8),
        {"layers": (3, 4, 6, 3), "width": 64, "image_size": 224},
        quick=False,
        size=224,
    ),
    _open_clip(
        "ResNet (other widths)",
        timm_("resnet50_clip", num_classes=8),
        {"layers": (1, 1, 1, 1), "width": 8, "image_size": 64},
        quick=False,
        refused="does not fill",
    ),
]
