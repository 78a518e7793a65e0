"""One layer for another: the rest keeps its bytes, the original stays."""

from __future__ import annotations

import pytest
import timm
import torch
from torch import nn

import regraft as rg
from regraft.errors import SettingsError
from regraft.models.describe.info import info_of
from regraft.models.layers.replace import replace_layer


def test_another_pooling_leaves_every_tensor() -> None:
    model = timm.create_model("resnet18").eval()
    changed = replace_layer(model, "maxpool", nn.AvgPool2d(3, 2, padding=1))
    assert isinstance(model.get_submodule("maxpool"), nn.MaxPool2d)
    assert isinstance(changed.get_submodule("maxpool"), nn.AvgPool2d)
    assert not changed.get_submodule("maxpool").training
    before, after = model.state_dict(), changed.state_dict()
    assert list(before) == list(after)
    assert all(torch.equal(before[name], after[name]) for name in before)
    images = torch.randn(1, 3, 64, 64)
    assert not torch.allclose(model(images), changed(images))


def test_a_layer_with_weights_counts_as_new_and_the_others_keep_their_bytes() -> None:
    model = timm.create_model("test_resnet")
    layer = nn.Conv2d(192, 96, 1, bias=False)
    changed = replace_layer(model, "layer4.0.downsample.1", nn.Sequential(layer, nn.BatchNorm2d(96)))
    assert info_of(changed).new_layers == ("layer4.0.downsample.1",)
    before, after = model.state_dict(), changed.state_dict()
    shared = [name for name in before if not name.startswith("layer4.0.downsample.1.")]
    assert all(torch.equal(before[name], after[name]) for name in shared)
    with torch.no_grad():
        layer.weight.zero_()
    assert after["layer4.0.downsample.1.0.weight"].any()


def test_names_in_keras_work() -> None:
    with torch.device("meta"):
        model = timm.create_model("vgg16")
        changed = replace_layer(model, "block5_pool", nn.AvgPool2d(2))
    assert isinstance(changed.get_submodule("features.30"), nn.AvgPool2d)


def test_the_network_does_not_forget_that_no_name_builds_it() -> None:
    changed = replace_layer(rg.build_model("test_resnet"), "maxpool", nn.AvgPool2d(3, 2, padding=1))
    adapted = rg.adapt(changed, classes=["cat", "dog"], image_size=64)
    assert info_of(adapted).args["own_module"] is True
    assert isinstance(adapted.get_submodule("maxpool"), nn.AvgPool2d)


def test_layers_that_do_not_fit() -> None:
    model = timm.create_model("test_resnet")
    with pytest.raises(SettingsError, match="does not run with Conv2d"):
        replace_layer(model, "layer3", nn.Conv2d(7, 8, 1))
    with pytest.raises(SettingsError, match=r"gives \(7,\) instead of \(1000,\)"):
        replace_layer(model, "fc", nn.Linear(96, 7))
    with pytest.raises(SettingsError, match="did you mean 'maxpool'"):
        replace_layer(model, "max_pool", nn.AvgPool2d(2))
    assert model(torch.zeros(1, 3, 64, 64)).shape == (1, 1000)
