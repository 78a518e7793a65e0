"""Names, transforms and attributes of other libraries' networks, on tiny files made of timm's own."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
from tests.oracle.matrix_page import PAGE, page
from timm.layers import resample_abs_pos_embed
from torch import nn

from regraft.errors import WeightsError
from regraft.models.graft.graft import graft
from regraft.models.graft.match import match_weights
from regraft.weights.axes import ResizeGrid, convert
from regraft.weights.file import read_weights
from regraft.weights.report import MatchReport

_VIT: dict[str, Any] = {"embed_dim": 24, "num_heads": 2, "depth": 2, "img_size": 32, "patch_size": 8, "num_classes": 3}
# timm's name -> that of transformers.
_TRANSFORMERS = {
    r"^cls_token": "vit.embeddings.cls_token",
    r"^pos_embed": "vit.embeddings.position_embeddings",
    r"^patch_embed\.proj": "vit.embeddings.patch_embeddings.projection",
    r"^blocks\.(\d+)\.norm1": r"vit.encoder.layer.\1.layernorm_before",
    r"^blocks\.(\d+)\.norm2": r"vit.encoder.layer.\1.layernorm_after",
    r"^blocks\.(\d+)\.attn\.proj": r"vit.encoder.layer.\1.attention.output.dense",
    r"^blocks\.(\d+)\.mlp\.fc1": r"vit.encoder.layer.\1.intermediate.dense",
    r"^blocks\.(\d+)\.mlp\.fc2": r"vit.encoder.layer.\1.output.dense",
    r"^norm": "vit.layernorm",
    r"^head": "classifier",
}
State = dict[str, torch.Tensor]


def _vit(**other: Any) -> nn.Module:
    torch.manual_seed(1)
    return timm.create_model("vit_tiny_patch16_224", **{**_VIT, **other}).eval()


def _as_transformers(state: State) -> State:
    found: State = {}
    for name, tensor in state.items():
        if match := re.fullmatch(r"blocks\.(\d+)\.attn\.qkv\.(\w+)", name):
            for part, rows in zip(("query", "key", "value"), tensor.chunk(3), strict=True):
                found[f"vit.encoder.layer.{match[1]}.attention.attention.{part}.{match[2]}"] = rows.clone()
            continue
        for pattern, new in _TRANSFORMERS.items():
            name = re.sub(pattern, new, name)
        found[name] = tensor
    return found


def _matched(state: State, folder: Path, model: nn.Module, config: dict[str, Any] | None = None) -> MatchReport:
    torch.save(state, folder / "model.pth")
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config))
    return match_weights(read_weights(folder / "model.pth"), model)


def _state(model: nn.Module) -> State:
    return {
        name: torch.randn_like(tensor) if tensor.is_floating_point() else tensor
        for name, tensor in model.state_dict().items()
    }


def test_queries_keys_and_values_are_joined(tmp_path: Path) -> None:
    model = _vit()
    state = _state(model)
    report = _matched(_as_transformers(state), tmp_path, model)
    graft(model, report.require("all"))
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())
    assert report.totals["file"] == {**report.totals["file"], "matched": 40, "total": 40}
    joined = next(match for match in report.matched if match.target == "blocks.0.attn.qkv.weight")
    assert [str(step) for step in joined.steps] == ["join #1 + #2 + #3"]


def test_a_bias_that_keys_lack_is_zeros(tmp_path: Path) -> None:
    model = _vit()
    state = _state(model)
    lacking = {name: tensor for name, tensor in _as_transformers(state).items() if not name.endswith("key.bias")}
    report = _matched(lacking, tmp_path, model)
    graft(model, report.require("all"))
    bias, wanted = model.state_dict()["blocks.1.attn.qkv.bias"], state["blocks.1.attn.qkv.bias"].clone()
    wanted[24:48] = 0
    assert torch.equal(bias, wanted)
    assert "no bias of keys: that part of blocks.0.attn.qkv.bias, blocks.1.attn.qkv.bias is zeros" in report.render()


def test_a_joined_layer_is_split_where_the_model_has_three(tmp_path: Path) -> None:
    class Apart(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Linear(8, 8)
            self.attn = nn.ModuleDict({name: nn.Linear(8, 8) for name in ("q_proj", "k_proj", "v_proj")})
            self.head = nn.Linear(8, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(sum(layer(self.stem(x)) for layer in self.attn.values()))  # type: ignore[no-any-return]

    model = Apart()
    state = {
        "stem.weight": torch.randn(8, 8),
        "stem.bias": torch.randn(8),
        "attn.qkv.weight": torch.randn(24, 8),
        "attn.qkv.bias": torch.randn(24),
        "head.weight": torch.randn(3, 8),
        "head.bias": torch.randn(3),
    }
    report = _matched(state, tmp_path, model)
    graft(model, report.require("all"))
    for place, layer in enumerate(model.attn.values()):
        assert torch.equal(layer.weight, state["attn.qkv.weight"][8 * place : 8 * place + 8])
        assert torch.equal(layer.bias, state["attn.qkv.bias"][8 * place : 8 * place + 8])


@pytest.mark.parametrize(("side", "tokens"), [(6, 1), (3, 1), (5, 0)])
def test_position_embeddings_are_interpolated_as_timm_does(side: int, tokens: int) -> None:
    given = torch.randn(1, tokens + side * side, 24)
    ours = convert([given.numpy()], [ResizeGrid(tokens, (side, side), (4, 4))])
    theirs = resample_abs_pos_embed(given, [4, 4], num_prefix_tokens=tokens)
    assert torch.allclose(torch.from_numpy(ours), theirs, atol=1e-5)


def test_another_image_size_is_said(tmp_path: Path) -> None:
    model, other = _vit(), _vit(img_size=48)
    report = _matched(_as_transformers(_state(other)), tmp_path, model).require("all")
    assert any("6x6 was interpolated to 4x4" in finding.text for finding in report.findings)


def test_an_activation_that_differs_is_refused(tmp_path: Path) -> None:
    model = _vit()
    report = _matched(_as_transformers(_state(model)), tmp_path, model, {"hidden_act": "gelu_pytorch_tanh"})
    with pytest.raises(WeightsError, match="gelu_tanh"):
        report.require("all")


def test_a_norm_of_pooled_tokens_is_refused(tmp_path: Path) -> None:
    model = _vit(global_pool="avg")
    report = _matched(_as_transformers(_state(_vit())), tmp_path, model)
    with pytest.raises(WeightsError, match="pooled"):
        report.require("all")


def test_another_number_of_heads_is_refused(tmp_path: Path) -> None:
    model = _vit()
    report = _matched(_as_transformers(_state(model)), tmp_path, model, {"num_attention_heads": 3})
    with pytest.raises(WeightsError, match="num_heads"):
        report.require("all")


@pytest.mark.parametrize("config", ["[" * 100_000, "{", "[]", '{"hidden_act": 3, "layer_norm_eps": "x"}'])
def test_a_config_that_says_nothing_is_left_alone(config: str, tmp_path: Path) -> None:
    model = _vit()
    (tmp_path / "config.json").write_text(config)
    _matched(_as_transformers(_state(model)), tmp_path, model).require("all")


def test_a_refusal_says_whose_names_the_file_has(tmp_path: Path) -> None:
    model = timm.create_model("resnet18", num_classes=3)
    report = _matched(_as_transformers(_state(_vit())), tmp_path, model)
    with pytest.raises(WeightsError, match=r"transformers gives them in vit"):
        report.require("backbone")


def _small_resnet() -> nn.Module:
    torch.manual_seed(1)
    return timm.create_model("resnet18", channels=(8, 8, 16, 16), layers=(1, 1, 1, 1), num_classes=3).eval()


@pytest.mark.parametrize("prefix", ["", "net_"])
def test_underscores_for_dots(prefix: str, tmp_path: Path) -> None:
    model = _small_resnet()
    state = _positive(_state(model))
    report = _matched({prefix + name.replace(".", "_"): tensor for name, tensor in state.items()}, tmp_path, model)
    graft(model, report.require("all"))
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


def test_the_children_of_a_resnet(tmp_path: Path) -> None:
    model = _small_resnet()
    state = _positive(_state(model))
    numbers = {"conv1": "0", "bn1": "1", "layer1": "4", "layer2": "5", "layer3": "6", "layer4": "7"}
    renamed = {f"f.{numbers[name.partition('.')[0]]}.{name.partition('.')[2]}": tensor for name, tensor in state.items()
               if not name.startswith("fc")}  # fmt: skip
    projector = {"g.0.weight": torch.ones(32, 16), "g.0.bias": torch.ones(32), "g.2.weight": torch.ones(8, 32)}
    graft(model, _matched(renamed | projector, tmp_path, model).require("backbone"))
    assert torch.equal(model.state_dict()["layer3.0.conv2.weight"], state["layer3.0.conv2.weight"])


@pytest.mark.parametrize(("extra", "is_filled"), [({}, True), ({"net.slice3.1.weight": torch.ones(8, 3, 3, 3)}, True)])
def test_one_trunk_in_parts(extra: State, is_filled: bool, tmp_path: Path) -> None:
    model = nn.Sequential()
    model.features = nn.Sequential(*[nn.Conv2d(3 if place == 0 else 8, 8, 3, padding=1) for place in range(6)])
    state = _state(model.features)
    cut = {f"net.slice{1 + int(name[0]) // 3}.{name}": tensor for name, tensor in state.items()}
    report = _matched(cut | extra, tmp_path, model)
    filled = {match.target: match.sources[0].load().copy() for match in report.matched if match.sources}
    assert (len(filled) == len(state)) is is_filled
    for name, values in filled.items():
        assert torch.equal(torch.from_numpy(values), state[name.removeprefix("features.")])


def _positive(state: State) -> State:
    return {name: tensor.abs() if name.endswith("running_var") else tensor for name, tensor in state.items()}


def test_the_page_of_pairs_is_current() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "uv run python -m tests.oracle.matrix_page"
