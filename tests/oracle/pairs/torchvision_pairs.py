"""Networks of torchvision."""

from __future__ import annotations

from typing import Any

from tests.oracle.pairs.shapes import DIMS_TIMM, SWIN_TIMM, VIT_TIMM
from tests.oracle.pairs.weight_pair import Network, Pair, timm_, write_state
from torch import nn

__all__ = ["TORCHVISION_PAIRS"]


def _torchvision(name: str, target: tuple[str, Network], *, narrow: Network | None = None, **how: Any) -> Pair:
    def source() -> nn.Module:
        import torchvision

        return narrow() if narrow else torchvision.models.get_model(name, init_weights=True, num_classes=10)

    def plain() -> nn.Module:
        import torchvision

        return narrow() if narrow else torchvision.models.get_model(name, num_classes=10)

    built = source if name in ("inception_v3", "googlenet") else plain
    return Pair("torchvision", name + how.pop("note", ""), target[0], built, write=write_state, build=target[1], **how)


def _narrow_convnext() -> nn.Module:
    from torchvision.models.convnext import CNBlockConfig, ConvNeXt

    settings = [CNBlockConfig(8, 8, 1), CNBlockConfig(8, 16, 1), CNBlockConfig(16, 16, 2), CNBlockConfig(16, None, 1)]
    return ConvNeXt(settings, num_classes=10)


def _narrow_vit() -> nn.Module:
    from torchvision.models.vision_transformer import VisionTransformer

    return VisionTransformer(32, 8, 2, 2, 24, 96, num_classes=10)


def _narrow_swin(version: int) -> Network:
    def build() -> nn.Module:
        from torchvision.models import swin_transformer as swin

        if version == 1:
            return swin.SwinTransformer([2, 2], 8, [2, 2], [2, 2], [4, 4], num_classes=10)
        return swin.SwinTransformer(
            [2, 2],
            8,
            [2, 2],
            [2, 2],
            [4, 4],
            num_classes=10,
            block=swin.SwinTransformerBlockV2,
            downsample_layer=swin.PatchMergingV2,
        )

    return build


TORCHVISION_PAIRS = [
    _torchvision("resnet18", timm_("resnet18", num_classes=10)),
    _torchvision("resnet50", timm_("resnet50", num_classes=10)),
    _torchvision("resnet34", timm_("resnet18", num_classes=10), refused="deeper"),
    _torchvision("resnet18", timm_("resnet34", num_classes=10), refused="missing"),
    _torchvision("resnet50", timm_("seresnet50", num_classes=10), refused="missing"),
    _torchvision("densenet121", timm_("densenet121", num_classes=10)),
    _torchvision("mobilenet_v2", timm_("mobilenetv2_100", num_classes=10)),
    _torchvision("mobilenet_v3_small", timm_("mobilenetv3_small_100", num_classes=10, bn_eps=1e-3)),
    _torchvision("mobilenet_v3_large", timm_("mobilenetv3_large_100", num_classes=10, bn_eps=1e-3)),
    _torchvision("mobilenet_v3_large", timm_("mobilenetv3_large_100", num_classes=10), note=" (stock)", refused="eps"),
    _torchvision("efficientnet_b0", timm_("efficientnet_b0", num_classes=10)),
    _torchvision("efficientnet_b0", timm_("tf_efficientnet_b0", num_classes=10), refused="SAME"),
    _torchvision("mnasnet1_0", timm_("mnasnet_100", num_classes=10)),
    _torchvision("regnet_x_400mf", timm_("regnetx_004_tv", num_classes=10)),
    _torchvision("regnet_x_400mf", timm_("regnetx_004", num_classes=10), refused="wrong shape"),
    _torchvision("regnet_y_400mf", timm_("regnety_004", num_classes=10)),
    _torchvision("regnet_y_400mf", timm_("regnetx_004", num_classes=10), refused="does not fill"),
    _torchvision("shufflenet_v2_x0_5", timm_("mobilenetv2_100", num_classes=10), refused="does not fill"),
    _torchvision("convnext", timm_("convnext_tiny", **DIMS_TIMM, num_classes=10), narrow=_narrow_convnext),
    _torchvision("convnext", timm_("convnext_atto", **DIMS_TIMM, num_classes=10), narrow=_narrow_convnext),
    _torchvision("vit", timm_("vit_tiny_patch16_224", **VIT_TIMM, num_classes=10), narrow=_narrow_vit, size=32),
    _torchvision(
        "swin",
        timm_("swin_tiny_patch4_window7_224", **{**SWIN_TIMM, "num_classes": 10}),
        narrow=_narrow_swin(1),
        size=32,
    ),
    _torchvision(
        "swin_v2",
        timm_("swinv2_tiny_window8_256", **{**SWIN_TIMM, "num_classes": 10}),
        narrow=_narrow_swin(2),
        size=32,
    ),
]
