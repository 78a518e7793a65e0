"""Features from the middle: the same numbers as a hook sees, without what they do not need."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

from regraft.errors import SettingsError
from regraft.models.describe.info import info_of
from regraft.models.layers.cut import cut, tap


def seen(model: nn.Module, layers: list[str], images: Tensor) -> list[Tensor]:
    """What hooks see."""
    got: dict[str, Tensor] = {}
    handles = [
        model.get_submodule(name).register_forward_hook(lambda _m, _i, out, name=name: got.update({name: out.clone()}))
        for name in layers
    ]
    with torch.no_grad():
        model(images)
    for handle in handles:
        handle.remove()
    return [got[name] for name in layers]


class Branching(nn.Module):
    """Cannot be traced: numbers decide its path."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.act = nn.ReLU(inplace=True)
        self.never = nn.Conv2d(4, 4, 1)
        self.fc = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        x = self.act(x) if x.sum() < 1e9 else self.never(x)
        return self.fc(x.mean((2, 3)))


class Listed(nn.Module):
    """Calls the members of a list, never the list."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList([nn.Conv2d(3, 4, 3), nn.ReLU()])

    def forward(self, x: Tensor) -> Tensor:
        for block in self.blocks:
            x = block(x)
        return x


@pytest.mark.parametrize(
    ("name", "layers"),
    [
        ("test_resnet", ["layer3", "layer1", "bn1", "act1"]),  # act1 writes into what bn1 gave
        ("test_efficientnet", ["blocks.1", "bn1", "conv_head"]),
        ("test_convnext", ["stages.1", "stages.3.blocks.0"]),
        ("test_nfnet", ["stages.0", "stages.1"]),
        ("test_vit", ["blocks.0", "norm"]),  # cannot be traced
    ],
)
def test_taps_see_what_hooks_see(name: str, layers: list[str]) -> None:
    model = timm.create_model(name).eval()
    images = torch.randn(2, 3, 160, 160)
    expected = seen(model, layers, images)
    with torch.no_grad():
        outputs = tap(model, layers)(images)
        assert all(torch.equal(output, hooked) for output, hooked in zip(outputs, expected, strict=True))
        assert torch.equal(cut(model, layers[0])(images), expected[0])


def test_a_cut_keeps_only_what_it_needs_under_the_names_of_the_original() -> None:
    model = timm.create_model("test_resnet")
    state = model.state_dict()
    features = cut(model, "layer2")
    assert {name.split(".")[0] for name in features.state_dict()} == {"conv1", "bn1", "layer1", "layer2"}
    assert all(torch.equal(tensor, state[name]) for name, tensor in features.state_dict().items())
    assert info_of(features).feature_stages == ("act1", "layer1", "layer2")
    assert list(model.state_dict()) == list(state)


def test_training_the_cut_leaves_the_original() -> None:
    model = timm.create_model("test_resnet")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    features = cut(model, "layer2").train()
    assert not any(hook for module in model.modules() for hook in (module._forward_hooks, module._forward_pre_hooks))
    first = features.state_dict()["bn1.running_mean"].clone()
    features(torch.randn(4, 3, 64, 64)).sum().backward()
    assert not torch.equal(features.state_dict()["bn1.running_mean"], first)
    assert all(parameter.grad is not None for parameter in features.parameters())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_drop_path_acts_in_training_and_not_in_evaluation() -> None:
    model = timm.create_model("test_convnext", drop_path_rate=0.9).train()
    features = cut(model, "stages.3")
    images = torch.randn(8, 3, 64, 64)
    assert features.training
    assert not torch.equal(features(images), features(images))
    features.eval()
    assert torch.equal(features(images), features(images))


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda module: pickle.loads(pickle.dumps(module))])
def test_a_cut_can_be_copied_and_stored(duplicate: Any) -> None:
    features = cut(timm.create_model("test_resnet").eval(), "layer3")
    images = torch.randn(1, 3, 64, 64)
    expected = features(images)
    assert torch.equal(duplicate(features)(images), expected)
    assert torch.equal(features.double()(images.double()), duplicate(features)(images.double()))


def test_names_in_keras() -> None:
    with torch.device("meta"):
        model = timm.create_model("vgg16").eval()
    features = tap(model, ["block3_pool", "block5_conv3"])
    shapes = [tuple(output.shape) for output in features(torch.zeros(1, 3, 128, 128, device="meta"))]
    assert shapes == [(1, 256, 16, 16), (1, 512, 8, 8)]


def test_features_of_a_network_that_cannot_be_traced() -> None:
    model = Branching().eval()
    images = torch.randn(2, 3, 8, 8)
    stem, act = tap(model, ["stem", "act"])(images)
    assert torch.equal(stem, model.stem(images))
    assert torch.equal(act, stem.relu())
    with pytest.raises(SettingsError, match="'never' never runs"):
        cut(model, "never")(images)


def test_layers_that_are_none() -> None:
    model = timm.create_model("test_resnet")
    with pytest.raises(SettingsError, match="did you mean 'layer3'"):
        cut(model, "layer_3")
    with pytest.raises(SettingsError, match="has no layer ''"):
        cut(model, "")
    for layers in ([], "layer2", ["layer2", "layer2"]):
        with pytest.raises(SettingsError, match="layers to tap"):
            tap(model, layers)
    with pytest.raises(SettingsError, match="never runs"):
        cut(Listed(), "blocks")
