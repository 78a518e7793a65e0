"""More pairs: names that no table knows, weight normalisation, networks written by hand as others name them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tests.oracle.pairs.weight_pair import Network, Pair, timm_, write_state
from torch import nn

__all__ = ["MORE_PAIRS"]

Rename = Callable[[int, str], str]

# --- no common names ----------------------------------------------------------------------------------------------


def _plain(*, norms: bool = True, widths: tuple[int, ...] = (8, 8, 8, 16)) -> Network:
    """Convolutions one behind the other, several of one shape, and a classifier."""

    def build() -> nn.Module:
        layers: list[nn.Module] = []
        for width, out in zip((3, *widths), widths, strict=False):
            norm = [nn.BatchNorm2d(out, eps=1e-3)] if norms else []
            layers += [nn.Conv2d(width, out, 3, padding=1), *norm, nn.ReLU()]
        return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(widths[-1], 5))

    return build


def _renamed(model: nn.Module, rename: Rename) -> dict[str, torch.Tensor]:
    state = model.state_dict()
    owners = list(dict.fromkeys(name.rpartition(".")[0] for name in state))
    return {
        rename(owners.index(name.rpartition(".")[0]), name.rpartition(".")[2]): tensor.clone()
        for name, tensor in state.items()
    }


_LEAVES = {"weight": "w", "bias": "b", "running_mean": "mu", "running_var": "var", "num_batches_tracked": "n"}
_WORDS = ("enter", "first", "settle", "second", "widen", "third", "leave", "fourth", "answer")
_PROJECTOR = {"proj.0.weight": (8, 8, 3, 3), "proj.1.weight": (8, 8, 3, 3), "proj.2.weight": (16, 16)}


def _foreign(name: str, rename: Rename, build: Network, suffix: str, *, beside: bool = False, **how: Any) -> Pair:
    def write(model: nn.Module, folder: Path) -> Path:
        state, path = _renamed(model, rename), folder / f"x{suffix}"
        state |= {one: torch.ones(shape) for one, shape in _PROJECTOR.items()} if beside else {}
        save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
        return path

    return Pair(
        "no common names", f"{name} ({suffix})", "nn.Sequential", build, write=write, build=build, size=32, **how
    )


_WORDED: Rename = lambda place, leaf: f"{_WORDS[place]}.{leaf}"  # noqa: E731
_NO_NAMES = [
    *(
        _foreign(name, rename, _plain(), suffix)
        for name, rename in {
            "layers by number": lambda place, leaf: f"net.{place}.{leaf}",
            "foreign leaves": lambda place, leaf: f"m.layer{place}.{_LEAVES[leaf]}",
            "stages and blocks": lambda place, leaf: f"body.stage{place // 4}.part{place % 4}.{leaf}",
            "a letter and a number": lambda place, leaf: f"{_LEAVES[leaf]}{place}",
        }.items()
        for suffix in (".pth", ".safetensors")
    ),
    _foreign("beside a projector of the same shapes", lambda place, leaf: f"enc.{place}.{leaf}", _plain(), ".pth",
             beside=True),
    _foreign("words, equal layers apart", _WORDED, _plain(norms=False, widths=(8, 8, 16, 8, 8)), ".pth"),
    _foreign("words, equal layers side by side", _WORDED, _plain(), ".pth", refused="order of definition"),
    _foreign("words, without an order", _WORDED, _plain(), ".safetensors", refused="does not distinguish"),
    _foreign("words, taken in order", _WORDED, _plain(), ".pth", options={"in_order": True}),
]  # fmt: skip


# --- weight normalisation -----------------------------------------------------------------------------------------


def _normalised(wrap: Any, name: str) -> Pair:
    target = timm_("resnet18", channels=(8, 8, 16, 16), layers=(1, 2, 1, 2), num_classes=2)

    def source() -> nn.Module:
        model = target[1]()
        for layer in list(model.modules()):
            if isinstance(layer, nn.Conv2d | nn.Linear):
                wrap(layer)
        return model

    return Pair("torch", f"ResNet with {name}", target[0], source, write=write_state, build=target[1])


_WEIGHT_NORM = [
    _normalised(nn.utils.weight_norm, "weight_norm"),
    _normalised(nn.utils.parametrizations.weight_norm, "parametrizations.weight_norm"),
]

# --- folded and without names -------------------------------------------------------------------------------------


def _frozen(model: nn.Module, folder: Path) -> Path:
    """Write TorchScript whose normalisations are folded and whose tensors are constants without names."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.freeze(torch.jit.trace(model, torch.zeros(1, 3, 64, 64))).save(folder / "x.pt")
    return folder / "x.pt"


_FROZEN = [
    Pair("torch", f"{name}, frozen TorchScript", name, build, write=_frozen, build=build)
    for name, build in (
        timm_("test_resnet", num_classes=3),
        timm_("test_efficientnet", num_classes=3),
        timm_("resnet18", channels=(8, 8, 16, 16), layers=(1, 2, 1, 2), num_classes=3),
    )
]

# --- torchvision, segmentation_models_pytorch ---------------------------------------------------------------------


def _maxvit() -> nn.Module:
    from torchvision.models.maxvit import MaxVit

    return MaxVit((64, 64), 16, 4, [32, 64], [1, 1], 16, 0.0, num_classes=3)


def _unet(encoder: str, what: str, **how: Any) -> Pair:
    def source() -> nn.Module:
        import segmentation_models_pytorch as smp

        return smp.Unet(encoder, encoder_weights=None)  # type: ignore[no-any-return]

    def build() -> nn.Module:
        from regraft.models.segment.unet import unet

        return unet(encoder, num_classes=1)

    return Pair("segmentation_models_pytorch", f"Unet({encoder}){what}", f"unet ({encoder})", source, write=write_state,
                build=build, **how)  # fmt: skip


_OTHERS = [
    Pair(
        "torchvision",
        "maxvit",
        "maxvit_tiny_tf_224",
        _maxvit,
        write=write_state,
        build=timm_(
            "maxvit_tiny_tf_224",
            img_size=64,
            embed_dim=(32, 64),
            depths=(1, 1),
            block_type=("M", "M"),
            stem_width=16,
            head_hidden_size=64,
            num_classes=3,
        )[1],
        refused="no network that computes the same",
    ),
    _unet(
        "resnet18",
        " (encoder)",
        require="backbone",
        output=lambda model, x: model.encoder(x)[-1],  # type: ignore[operator]
        own_output=lambda model, x: model.encoder.forward_intermediates(x, intermediates_only=True)[-1],  # type: ignore[operator,union-attr]
    ),
    _unet("resnet18", " (decoder: five steps there, four here)", refused="missing"),
]

# --- OpenMMLab ----------------------------------------------------------------------------------------------------

_SWIN: dict[str, Any] = {"img_size": 32, "patch_size": 2, "embed_dim": 8, "depths": (2, 2), "num_heads": (2, 2)}
_SWIN |= {"window_size": 4, "num_classes": 2}
_OPENMMLAB = {
    r"patch_embed\.proj": "patch_embed.projection",
    r"layers\.1\.downsample": "stages.0.downsample",
    r"layers\.(\d)\.blocks": r"stages.\1.blocks",
    r"attn\.(qkv|proj|relative_position_bias_table)": r"attn.w_msa.\1",
    r"mlp\.fc1": "ffn.layers.0.0",
    r"mlp\.fc2": "ffn.layers.1",
    r"^norm\.": "norm3.",
    r"^head\.fc": "head.fc",
}


class _Unfolding(nn.Module):
    """Patch merging as OpenMMLab has it: the four pixels of a window by `nn.Unfold`."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.reduction = nn.LayerNorm(4 * width), nn.Linear(4 * width, 2 * width, bias=False)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        height, width = maps.shape[1:3]
        rows = nn.functional.unfold(maps.permute(0, 3, 1, 2), 2, stride=2).transpose(1, 2)
        merged: torch.Tensor = self.reduction(self.norm(rows))
        return merged.reshape(len(maps), height // 2, width // 2, -1)


def _openmmlab_swin() -> nn.Module:
    model: Any = timm_("swin_tiny_patch4_window7_224", **_SWIN)[1]()
    model.layers[1].downsample = _Unfolding(8)
    return model  # type: ignore[no-any-return]


def _as_openmmlab(model: nn.Module, folder: Path) -> Path:
    state = {}
    for name, tensor in model.state_dict().items():
        for pattern, there in _OPENMMLAB.items():
            name = re.sub(pattern, there, name)
        state[name if name.startswith("head") else f"backbone.{name}"] = tensor
    torch.save({"state_dict": state, "meta": {}}, folder / "x.pth")
    return folder / "x.pth"


_MM = [
    Pair(
        "OpenMMLab (names and patch merging written by hand)",
        "SwinTransformer",
        "swin_tiny_patch4_window7_224",
        _openmmlab_swin,
        write=_as_openmmlab,
        build=timm_("swin_tiny_patch4_window7_224", **_SWIN)[1],
        size=32,
    )
]

MORE_PAIRS = [*_OTHERS, *_NO_NAMES, *_WEIGHT_NORM, *_FROZEN, *_MM]
