"""Pairs of a network of another library and one that regraft builds, each narrow and with seeded random weights.

`PAIRS` is what `test_weights_matrix` runs through: a file as the library writes it, the library's own output, and what
must come of it: the same numbers, or a refusal that says why.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from tests.oracle.keras_pairs import KERAS_PAIRS
from tests.oracle.weight_pair import Network, Pair, features, timm_, write_state
from tests.oracle.weight_pairs_more import MORE_PAIRS
from torch import nn

__all__ = ["PAIRS"]


def _hidden(model: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return model(x).last_hidden_state  # type: ignore[no-any-return]


def _hub(model: nn.Module, folder: Path) -> Path:
    model.save_pretrained(folder)  # type: ignore[operator]
    return folder / "model.safetensors"


# --- transformers -------------------------------------------------------------------------------------------------


def _transformers(name: str, config: Callable[[Any], Any], target: tuple[str, Network], **how: Any) -> Pair:
    def source() -> nn.Module:
        import transformers

        return getattr(transformers, name)(config(transformers))  # type: ignore[no-any-return]

    how = {"write": _hub, **how}
    return Pair("transformers", name + how.pop("note", ""), target[0], source, build=target[1], **how)


_VIT: dict[str, Any] = {
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 96,
    "image_size": 32,
    "patch_size": 8,
}
_VIT_TIMM: dict[str, Any] = {"embed_dim": 24, "num_heads": 2, "depth": 2, "img_size": 32, "patch_size": 8}
_DIMS = {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 2, 1]}
_DIMS_TIMM: dict[str, Any] = {"dims": (8, 8, 16, 16), "depths": (1, 1, 2, 1)}
_SWIN: dict[str, Any] = {
    "image_size": 32,
    "patch_size": 2,
    "embed_dim": 8,
    "depths": [2, 2],
    "num_heads": [2, 2],
    "window_size": 4,
}
_SWIN_TIMM: dict[str, Any] = {
    "img_size": 32,
    "patch_size": 2,
    "embed_dim": 8,
    "depths": (2, 2),
    "num_heads": (2, 2),
    "window_size": 4,
    "num_classes": 2,
}
_RESNET_18 = {"embedding_size": 64, "hidden_sizes": [8, 8, 16, 16], "depths": [1, 2, 1, 2], "layer_type": "basic"}
_RESNET_50 = {"embedding_size": 64, "hidden_sizes": [32, 32, 64, 64], "depths": [1, 2, 1, 2]}
_LAYERS = {"layers": (1, 2, 1, 2), "num_classes": 2}


def _of(config: str, **settings: Any) -> Callable[[Any], Any]:
    return lambda transformers: getattr(transformers, config)(**settings)


_TRANSFORMERS = [
    _transformers(
        "ResNetForImageClassification",
        _of("ResNetConfig", **_RESNET_18),
        timm_("resnet18", channels=(8, 8, 16, 16), **_LAYERS),
        note=" (basic)",
    ),
    _transformers(
        "ResNetForImageClassification",
        _of("ResNetConfig", **_RESNET_50),
        timm_("resnet50", channels=(8, 8, 16, 16), **_LAYERS),
        note=" (bottleneck)",
    ),
    _transformers(
        "ResNetForImageClassification",
        _of("ResNetConfig", **_RESNET_50, downsample_in_bottleneck=True),
        timm_("resnet50", channels=(8, 8, 16, 16), **_LAYERS),
        note=" (strides in the first convolution)",
        refused="stride",
    ),
    _transformers(
        "ConvNextForImageClassification",
        _of("ConvNextConfig", **_DIMS),
        timm_("convnext_atto", **_DIMS_TIMM, num_classes=2),
    ),
    _transformers(
        "ConvNextForImageClassification",
        _of("ConvNextConfig", **_DIMS),
        timm_("convnext_tiny", **_DIMS_TIMM, num_classes=2),
    ),
    _transformers(
        "ConvNextV2ForImageClassification",
        _of("ConvNextV2Config", **_DIMS),
        timm_("convnextv2_atto", **_DIMS_TIMM, num_classes=2),
    ),
    _transformers(
        "DINOv3ConvNextModel",
        _of("DINOv3ConvNextConfig", **_DIMS),
        timm_("convnext_tiny", **_DIMS_TIMM, num_classes=0),
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
            _of("ViTConfig", **_VIT),
            timm_("vit_tiny_patch16_224", **_VIT_TIMM, num_classes=2),
            size=32,
            write=write,
            note=note,
        )
        for write, note in ((_hub, ""), (write_state, " (names of version 5)"))
    ),
    _transformers(
        "ViTForImageClassification",
        _of("ViTConfig", **{**_VIT, "hidden_act": "relu"}),
        timm_("vit_tiny_patch16_224", **_VIT_TIMM, num_classes=2),
        note=" (ReLU)",
        size=32,
        refused="activation",
    ),
    _transformers(
        "ViTForImageClassification",
        _of("ViTConfig", **{**_VIT, "num_hidden_layers": 3}),
        timm_("vit_tiny_patch16_224", **_VIT_TIMM, num_classes=2),
        note=" (one block more)",
        size=32,
        refused="deeper",
    ),
    _transformers(
        "ViTForImageClassification",
        _of("ViTConfig", **{**_VIT, "num_hidden_layers": 1}),
        timm_("vit_tiny_patch16_224", **_VIT_TIMM, num_classes=2),
        note=" (one block less)",
        size=32,
        refused="missing",
    ),
    _transformers(
        "ViTForImageClassification",
        _of("ViTConfig", **_VIT),
        timm_("vit_tiny_patch16_224", **{**_VIT_TIMM, "num_heads": 3}, num_classes=2),
        note=" (other heads)",
        size=32,
        refused="num_heads",
    ),
    _transformers(
        "ViTModel",
        _of("ViTConfig", **_VIT),
        timm_("vit_tiny_patch16_224", **_VIT_TIMM, num_classes=0),
        size=32,
        output=_hidden,
        own_output=features,
    ),
    _transformers(
        "DeiTForImageClassification",
        _of("DeiTConfig", **_VIT),
        timm_("deit_tiny_distilled_patch16_224", **_VIT_TIMM, num_classes=2),
        size=32,
        require="backbone",
        output=lambda model, x: model.deit(x).last_hidden_state,
        own_output=features,
    ),
    _transformers(
        "DeiTForImageClassificationWithTeacher",
        _of("DeiTConfig", **_VIT),
        timm_("deit_tiny_distilled_patch16_224", **_VIT_TIMM, num_classes=2),
        size=32,
    ),
    _transformers(
        "BeitForImageClassification",
        _of("BeitConfig", **_VIT, use_relative_position_bias=True),
        timm_("beit_base_patch16_224", **_VIT_TIMM, num_classes=2),
        size=32,
    ),
    _transformers(
        "Data2VecVisionForImageClassification",
        _of("Data2VecVisionConfig", **_VIT, use_relative_position_bias=True),
        timm_("beit_base_patch16_224", **_VIT_TIMM, num_classes=2),
        size=32,
    ),
    _transformers(
        "Dinov2Model",
        _of("Dinov2Config", **_VIT),
        timm_("vit_small_patch14_dinov2", **_VIT_TIMM),
        size=32,
        output=_hidden,
        own_output=features,
    ),
    _transformers(
        "Dinov2Model",
        _of("Dinov2Config", **_VIT, use_swiglu_ffn=True),
        timm_("vit_giant_patch14_dinov2", **_VIT_TIMM, mlp_ratio=16 / 3),
        note=" (SwiGLU)",
        size=32,
        output=_hidden,
        own_output=features,
    ),
    _transformers(
        "Dinov2WithRegistersModel",
        _of("Dinov2WithRegistersConfig", **_VIT),
        timm_("vit_small_patch14_reg4_dinov2", **_VIT_TIMM),
        size=32,
        output=_hidden,
        own_output=features,
    ),
    _transformers(
        "DINOv3ViTModel",
        _of("DINOv3ViTConfig", **_VIT, num_register_tokens=4),
        timm_("vit_small_patch16_dinov3_qkvb", **_VIT_TIMM),
        size=32,
        output=_hidden,
        own_output=features,
    ),
    _transformers(
        "DINOv3ViTModel",
        _of("DINOv3ViTConfig", **_VIT, num_register_tokens=4, query_bias=False, value_bias=False),
        timm_("vit_small_patch16_dinov3", **_VIT_TIMM),
        note=" (no biases of queries and values)",
        size=32,
        output=_hidden,
        own_output=features,
    ),
    _transformers(
        "DINOv3ViTModel",
        _of("DINOv3ViTConfig", **_VIT, num_register_tokens=4),
        timm_("vit_small_patch16_dinov3", **_VIT_TIMM),
        note=" (the network without biases)",
        size=32,
        refused="q_proj.bias has no place",
    ),
    _transformers(
        "CLIPVisionModelWithProjection",
        _of("CLIPVisionConfig", **_VIT, projection_dim=8),
        timm_("vit_base_patch32_clip_quickgelu_224", **_VIT_TIMM, num_classes=8),
        size=32,
    ),
    _transformers(
        "CLIPVisionModelWithProjection",
        _of("CLIPVisionConfig", **_VIT, projection_dim=8, hidden_act="gelu"),
        timm_("vit_base_patch32_clip_224", **_VIT_TIMM, num_classes=8),
        note=" (GELU)",
        size=32,
    ),
    _transformers(
        "CLIPVisionModelWithProjection",
        _of("CLIPVisionConfig", **_VIT, projection_dim=8),
        timm_("vit_base_patch32_clip_224", **_VIT_TIMM, num_classes=8),
        note=" (QuickGELU into GELU)",
        size=32,
        refused="quick_gelu",
    ),
    _transformers(
        "SiglipVisionModel",
        _of("SiglipVisionConfig", **_VIT),
        timm_("vit_base_patch16_siglip_224", **_VIT_TIMM, num_classes=0, act_layer="gelu_tanh"),
        size=32,
        output=lambda model, x: model(x).pooler_output,
        own_output=lambda model, x: model(x),
    ),
    _transformers(
        "SiglipVisionModel",
        _of("SiglipVisionConfig", **_VIT),
        timm_("vit_base_patch16_siglip_224", **_VIT_TIMM, num_classes=0),
        note=" (another GELU)",
        size=32,
        refused="gelu_tanh",
    ),
    _transformers(
        "SwinForImageClassification",
        _of("SwinConfig", **_SWIN),
        timm_("swin_tiny_patch4_window7_224", **_SWIN_TIMM),
        size=32,
    ),
    _transformers(
        "Swinv2ForImageClassification",
        _of("Swinv2Config", **_SWIN),
        timm_("swinv2_tiny_window8_256", **_SWIN_TIMM),
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


# --- torchvision --------------------------------------------------------------------------------------------------


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


_TORCHVISION = [
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
    _torchvision("convnext", timm_("convnext_tiny", **_DIMS_TIMM, num_classes=10), narrow=_narrow_convnext),
    _torchvision("convnext", timm_("convnext_atto", **_DIMS_TIMM, num_classes=10), narrow=_narrow_convnext),
    _torchvision("vit", timm_("vit_tiny_patch16_224", **_VIT_TIMM, num_classes=10), narrow=_narrow_vit, size=32),
    _torchvision(
        "swin",
        timm_("swin_tiny_patch4_window7_224", **{**_SWIN_TIMM, "num_classes": 10}),
        narrow=_narrow_swin(1),
        size=32,
    ),
    _torchvision(
        "swin_v2",
        timm_("swinv2_tiny_window8_256", **{**_SWIN_TIMM, "num_classes": 10}),
        narrow=_narrow_swin(2),
        size=32,
    ),
]


# --- open_clip ----------------------------------------------------------------------------------------------------


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
_OPEN_CLIP = [
    _open_clip(
        "ViT (QuickGELU)",
        timm_("vit_base_patch32_clip_quickgelu_224", **_VIT_TIMM, num_classes=8),
        _CLIP_VISION,
        quick=True,
    ),
    _open_clip(
        "ViT (GELU, with its config)",
        timm_("vit_base_patch32_clip_224", **_VIT_TIMM, num_classes=8),
        _CLIP_VISION,
        quick=False,
        write=_with_clip_config,
    ),
    _open_clip(
        "ViT (GELU, with its config)",
        timm_("vit_base_patch32_clip_quickgelu_224", **_VIT_TIMM, num_classes=8),
        _CLIP_VISION,
        quick=False,
        write=_with_clip_config,
        refused="activation",
    ),
    _open_clip(
        "ViT (without its config)",
        timm_("vit_base_patch32_clip_224", **_VIT_TIMM, num_classes=8),
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


# --- training frameworks: networks of timm below other names ------------------------------------------------------


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
    (timm_("resnet18", channels=(8, 8, 16, 16), **_LAYERS), {}),
    (timm_("convnext_tiny", **_DIMS_TIMM, num_classes=3), {}),
    (timm_("vit_tiny_patch16_224", **_VIT_TIMM, num_classes=3), {"size": 32}),
    (timm_("vit_small_patch14_dinov2", **_VIT_TIMM, num_classes=3), {"size": 32}),
    (timm_("swin_tiny_patch4_window7_224", **_SWIN_TIMM), {"size": 32}),
    (timm_("mobilenetv3_small_050", num_classes=3), {}),
]
_WRAPPED = [
    _wrapped(framework, network, wrap, **{**how, **expected})
    for framework, wrap, expected in _WRAPPERS
    for network, how in _WRAPPED_NETWORKS
] + [
    _wrapped(framework, network, wrap, **{**how, **expected})
    for framework, wrap, expected in _SPELLINGS
    for network, how in (_WRAPPED_NETWORKS[0], _WRAPPED_NETWORKS[5])
]


# --- segmentation_models_pytorch ----------------------------------------------------------------------------------


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


_SMP = [
    _smp("resnet18", timm_("resnet18")),
    _smp("resnet34", timm_("resnet18"), refused="deeper"),
    _smp("mobilenet_v2", timm_("mobilenetv2_100")),
    _smp("tu-resnet18", timm_("resnet18")),
    _smp("efficientnet-b0", timm_("tf_efficientnet_b0"), own_output=_blocks),
    _smp("efficientnet-b0", timm_("efficientnet_b0"), refused="SAME"),
    _smp("densenet121", timm_("densenet121"), output=lambda model, x: torch.relu(model.encoder(x)[-1])),
]

PAIRS: list[Pair] = [*_TRANSFORMERS, *_TORCHVISION, *_OPEN_CLIP, *_WRAPPED, *_SMP, *KERAS_PAIRS, *MORE_PAIRS]
