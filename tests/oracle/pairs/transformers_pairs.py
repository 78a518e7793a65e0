"""Networks of transformers, as `save_pretrained` writes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from tests.oracle.pairs.shapes import DIMS, DIMS_TIMM, LAYERS, RESNET_18, RESNET_50, SWIN, SWIN_TIMM, VIT, VIT_TIMM
from tests.oracle.pairs.weight_pair import Network, Pair, features, timm_, write_state
from torch import nn

__all__ = ["TRANSFORMERS_PAIRS"]


def _hidden(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return model(x).last_hidden_state  # type: ignore[no-any-return]


def _hub(model: nn.Module, folder: Path) -> Path:
    model.save_pretrained(folder)  # type: ignore[operator]
    return folder / "model.safetensors"


def _transformers(name: str, config: Callable[[Any], Any], target: tuple[str, Network], **how: Any) -> Pair:
    def source() -> nn.Module:
        import transformers

        return getattr(transformers, name)(config(transformers))  # type: ignore[no-any-return]

    how = {"write": _hub, **how}
    return Pair("transformers", name + how.pop("note", ""), target[0], source, build=target[1], **how)


def _of(config: str, **settings: Any) -> Callable[[Any], Any]:
    return lambda transformers: getattr(transformers, config)(**settings)


TRANSFORMERS_PAIRS = [
    _transformers(
        "ResNetForImageClassification",
        _of("ResNetConfig", **RESNET_18),
        timm_("resnet18", channels=(8, 8, 16, 16), **LAYERS),
        note=" (basic)",
    ),
    _transformers(
        "ResNetForImageClassification",
        _of("ResNetConfig", **RESNET_50),
        timm_("resnet50", channels=(8, 8, 16, 16), **LAYERS),
        note=" (bottleneck)",
    ),
    _transformers(
        "ResNetForImageClassification",
        _of("ResNetConfig", **RESNET_50, downsample_in_bottleneck=True),
        timm_("resnet50", channels=(8, 8, 16, 16), **LAYERS),
        note=" (strides in the first convolution)",
        refused="stride",
    ),
    _transformers(
        "ConvNextForImageClassification",
        _of("ConvNextConfig", **DIMS),
        timm_("convnext_atto", **DIMS_TIMM, num_classes=2),
    ),
    _transformers(
        "ConvNextForImageClassification",
        _of("ConvNextConfig", **DIMS),
        timm_("convnext_tiny", **DIMS_TIMM, num_classes=2),
    ),
    _transformers(
        "ConvNextV2ForImageClassification",
        _of("ConvNextV2Config", **DIMS),
        timm_("convnextv2_atto", **DIMS_TIMM, num_classes=2),
    ),
    _transformers(
        "DINOv3ConvNextModel",
        _of("DINOv3ConvNextConfig", **DIMS),
        timm_("convnext_tiny", **DIMS_TIMM, num_classes=0),
        output=lambda model, x: model(x).pooler_output,
        own_output=lambda model, x: model(x),
    ),
    *(
        _transformers(
            "RegNetForImageClassification",
            _of("RegNetConfig", hidden_sizes=sizes, depths=[1, 1, 4, 7], groups_width=8, layer_type=kind),
            timm_(f"regnet{kind}_002", num_classes=2),
            note=f" ({kind})",
        )
        for kind, sizes in (("x", [24, 56, 152, 368]), ("y", [24, 56, 152, 368]))
    ),
    _transformers(
        "MobileNetV1ForImageClassification",
        _of("MobileNetV1Config"),
        timm_("mobilenetv1_100", num_classes=2, pad_type="same", bn_eps=1e-3, act_layer="relu6"),
    ),
    _transformers(
        "MobileNetV1ForImageClassification",
        _of("MobileNetV1Config"),
        timm_("mobilenetv1_100", num_classes=2),
        note=" (stock)",
        refused="eps",
    ),
    _transformers(
        "MobileNetV2ForImageClassification",
        _of("MobileNetV2Config"),
        timm_("mobilenetv2_100", num_classes=2, pad_type="same", bn_eps=1e-3),
    ),
    _transformers(
        "MobileNetV2ForImageClassification",
        _of("MobileNetV2Config"),
        timm_("mobilenetv2_100", num_classes=2),
        note=" (stock)",
        refused="SAME",
    ),
    _transformers(
        "EfficientNetForImageClassification",
        _of("EfficientNetConfig", width_coefficient=1.0, depth_coefficient=1.0, image_size=64, hidden_dim=1280),
        timm_("tf_efficientnet_b0", num_classes=2),
    ),
    _transformers(
        "EfficientNetForImageClassification",
        _of("EfficientNetConfig", width_coefficient=1.0, depth_coefficient=1.0, image_size=64, hidden_dim=1280),
        timm_("efficientnet_b0", num_classes=2),
        note=" (stock)",
        refused="SAME",
    ),
    *(
        _transformers(
            "ViTForImageClassification",
            _of("ViTConfig", **VIT),
            timm_("vit_tiny_patch16_224", **VIT_TIMM, num_classes=2),
            size=32,
            write=write,
            note=note,
        )
        for write, note in ((_hub, ""), (write_state, " (names of version 5)"))
    ),
    _transformers(
        "ViTForImageClassification",
        _of("ViTConfig", **{**VIT, "hidden_act": "relu"}),
        timm_("vit_tiny_patch16_224", **VIT_TIMM, num_classes=2),
        note=" (ReLU)",
        size=32,
        refused="activation",
    ),
    _transformers(
        "ViTForImageClassification",
        _of("ViTConfig", **{**VIT, "num_hidden_layers": 3}),
        timm_("vit_tiny_patch16_224", **VIT_TIMM, num_classes=2),
        note=" (one block more)",
        size=32,
        refused="deeper",
    ),
    _transformers(
        "ViTForImageClassification",
        _of("ViTConfig", **{**VIT, "num_hidden_layers": 1}),
        timm_("vit_tiny_patch16_224", **VIT_TIMM, num_classes=2),
        note=" (one block less)",
        size=32,
        refused="missing",
    ),
    _transformers(
        "ViTForImageClassification",
        _of("ViTConfig", **VIT),
        timm_("vit_tiny_patch16_224", **{**VIT_TIMM, "num_heads": 3}, num_classes=2),
        note=" (other heads)",
        size=32,
        refused="num_heads",
    ),
    _transformers(
        "ViTModel",
        _of("ViTConfig", **VIT),
        timm_("vit_tiny_patch16_224", **VIT_TIMM, num_classes=0),
        size=32,
        output=_hidden,
        own_output=features,
    ),
    _transformers(
        "DeiTForImageClassification",
        _of("DeiTConfig", **VIT),
        timm_("deit_tiny_distilled_patch16_224", **VIT_TIMM, num_classes=2),
        size=32,
        require="backbone",
        output=lambda model, x: model.deit(x).last_hidden_state,
        own_output=features,
    ),
    _transformers(
        "DeiTForImageClassificationWithTeacher",
        _of("DeiTConfig", **VIT),
        timm_("deit_tiny_distilled_patch16_224", **VIT_TIMM, num_classes=2),
        size=32,
    ),
    _transformers(
        "BeitForImageClassification",
        _of("BeitConfig", **VIT, use_relative_position_bias=True),
        timm_("beit_base_patch16_224", **VIT_TIMM, num_classes=2),
        size=32,
    ),
    _transformers(
        "Data2VecVisionForImageClassification",
        _of("Data2VecVisionConfig", **VIT, use_relative_position_bias=True),
        timm_("beit_base_patch16_224", **VIT_TIMM, num_classes=2),
        size=32,
    ),
    _transformers(
        "Dinov2Model",
        _of("Dinov2Config", **VIT),
        timm_("vit_small_patch14_dinov2", **VIT_TIMM),
        size=32,
        output=_hidden,
        own_output=features,
    ),
    _transformers(
        "Dinov2Model",
        _of("Dinov2Config", **VIT, use_swiglu_ffn=True),
        timm_("vit_giant_patch14_dinov2", **VIT_TIMM, mlp_ratio=16 / 3),
        note=" (SwiGLU)",
        size=32,
        output=_hidden,
        own_output=features,
    ),
    _transformers(
        "Dinov2WithRegistersModel",
        _of("Dinov2WithRegistersConfig", **VIT),
        timm_("vit_small_patch14_reg4_dinov2", **VIT_TIMM),
        size=32,
        output=_hidden,
        own_output=features,
    ),
    _transformers(
        "DINOv3ViTModel",
        _of("DINOv3ViTConfig", **VIT, num_register_tokens=4),
        timm_("vit_small_patch16_dinov3_qkvb", **VIT_TIMM),
        size=32,
        output=_hidden,
        own_output=features,
    ),
    _transformers(
        "DINOv3ViTModel",
        _of("DINOv3ViTConfig", **VIT, num_register_tokens=4, query_bias=False, value_bias=False),
        timm_("vit_small_patch16_dinov3", **VIT_TIMM),
        note=" (no biases of queries and values)",
        size=32,
        output=_hidden,
        own_output=features,
    ),
    _transformers(
        "DINOv3ViTModel",
        _of("DINOv3ViTConfig", **VIT, num_register_tokens=4),
        timm_("vit_small_patch16_dinov3", **VIT_TIMM),
        note=" (the network without biases)",
        size=32,
        refused="q_proj.bias has no place",
    ),
    _transformers(
        "CLIPVisionModelWithProjection",
        _of("CLIPVisionConfig", **VIT, projection_dim=8),
        timm_("vit_base_patch32_clip_quickgelu_224", **VIT_TIMM, num_classes=8),
        size=32,
    ),
    _transformers(
        "CLIPVisionModelWithProjection",
        _of("CLIPVisionConfig", **VIT, projection_dim=8, hidden_act="gelu"),
        timm_("vit_base_patch32_clip_224", **VIT_TIMM, num_classes=8),
        note=" (GELU)",
        size=32,
    ),
    _transformers(
        "CLIPVisionModelWithProjection",
        _of("CLIPVisionConfig", **VIT, projection_dim=8),
        timm_("vit_base_patch32_clip_224", **VIT_TIMM, num_classes=8),
        note=" (QuickGELU into GELU)",
        size=32,
        refused="quick_gelu",
    ),
    _transformers(
        "SiglipVisionModel",
        _of("SiglipVisionConfig", **VIT),
        timm_("vit_base_patch16_siglip_224", **VIT_TIMM, num_classes=0, act_layer="gelu_tanh"),
        size=32,
        output=lambda model, x: model(x).pooler_output,
        own_output=lambda model, x: model(x),
    ),
    _transformers(
        "SiglipVisionModel",
        _of("SiglipVisionConfig", **VIT),
        timm_("vit_base_patch16_siglip_224", **VIT_TIMM, num_classes=0),
        note=" (another GELU)",
        size=32,
        refused="gelu_tanh",
    ),
    _transformers(
        "SwinForImageClassification",
        _of("SwinConfig", **SWIN),
        timm_("swin_tiny_patch4_window7_224", **SWIN_TIMM),
        size=32,
    ),
    _transformers(
        "Swinv2ForImageClassification",
        _of("Swinv2Config", **SWIN),
        timm_("swinv2_tiny_window8_256", **SWIN_TIMM),
        size=32,
        tolerance=1e-4,
    ),
    _transformers(
        "MobileViTForImageClassification",
        _of("MobileViTConfig", image_size=64),
        timm_("mobilevit_s", num_classes=2),
    ),
    _transformers(
        "PvtV2ForImageClassification",
        _of(
            "PvtV2Config",
            hidden_sizes=[8, 8, 16, 16],
            depths=[1, 2, 1, 1],
            num_attention_heads=[1, 2, 2, 2],
            mlp_ratios=[4, 4, 2, 2],
        ),
        timm_(
            "pvt_v2_b0",
            embed_dims=(8, 8, 16, 16),
            depths=(1, 2, 1, 1),
            num_heads=(1, 2, 2, 2),
            mlp_ratios=(4, 4, 2, 2),
            num_classes=2,
        ),
        adjust=True,
    ),
    _transformers(
        "PoolFormerForImageClassification",
        _of("PoolFormerConfig"),
        timm_("poolformer_s12", num_classes=2),
        refused="after pooling",
    ),
    _transformers(
        "PoolFormerForImageClassification",
        _of("PoolFormerConfig"),
        timm_("poolformer_s12", num_classes=2),
        note=" (without its norm)",
        options={"skip": ["norm"]},
        require="backbone",
        output=lambda model, x: model.poolformer(x).last_hidden_state,
        own_output=features,
    ),
    _transformers(
        "LevitForImageClassificationWithTeacher",
        _of("LevitConfig"),
        timm_("levit_128", num_classes=2),
        size=224,
    ),
    _transformers(
        "FocalNetForImageClassification",
        _of("FocalNetConfig", image_size=64),
        timm_("focalnet_tiny_srf", num_classes=2),
    ),
    _transformers("BitForImageClassification", _of("BitConfig"), timm_("resnetv2_50x1_bit", num_classes=2)),
    _transformers(
        "BitForImageClassification",
        _of("BitConfig", global_padding="SAME"),
        timm_("resnetv2_50x1_bit", num_classes=2),
        note=" (pads as TensorFlow does)",
        refused="SAME",
    ),
    _transformers(
        "SegformerForImageClassification",
        _of("SegformerConfig", hidden_sizes=[8, 8, 16, 16], depths=[1, 1, 1, 1], num_attention_heads=[1, 2, 2, 2]),
        timm_("pvt_v2_b0", embed_dims=(8, 8, 16, 16), depths=(1, 1, 1, 1), num_heads=(1, 2, 2, 2), num_classes=2),
        refused="does not fill",
    ),
]  # fmt: skip
