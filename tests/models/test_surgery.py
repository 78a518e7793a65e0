"""New heads: the original stays, the copy has the classes, the size and the form that were asked for."""

from __future__ import annotations

from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

import regraft as rg
from regraft.errors import SettingsError
from regraft.models.describe.info import info_of, preprocessing_of
from regraft.models.surgery.surgery import default_preprocessing

CLASSES = ["cat", "dog", "hen"]


class Small(nn.Module):
    """A user's own network."""

    def __init__(self, num_classes: int = 10) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), nn.BatchNorm2d(8), nn.ReLU())
        self.fc = nn.Linear(8, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.features(x).mean((2, 3)))


def test_the_original_is_left_as_it_was() -> None:
    model = rg.build_model("test_resnet")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    info = info_of(model).args.copy()
    adapted = rg.adapt(model, classes=CLASSES, image_size=64)
    assert list(model.state_dict()) == list(before)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert info_of(model).args == info
    assert info_of(model).class_names is None
    assert adapted(torch.zeros(1, 3, 64, 64)).shape == (1, 3)


def test_the_backbone_is_kept_and_the_head_is_a_function_of_the_seed() -> None:
    model = rg.build_model("test_efficientnet")
    one, two, other = (rg.adapt(model, classes=CLASSES, seed=seed).state_dict() for seed in (1, 1, 2))
    for name, tensor in model.state_dict().items():
        if not name.startswith("classifier"):
            assert torch.equal(one[name], tensor)
    assert torch.equal(one["classifier.weight"], two["classifier.weight"])
    assert not torch.equal(one["classifier.weight"], other["classifier.weight"])


@pytest.mark.parametrize(
    ("head", "rows"),
    [
        (rg.Head(pool="flatten"), 3 * 96 * 4),
        (rg.Head(pool="avg", hidden=[16, 8], dropout=0.2), 3 * 8),
        (rg.Head(pool="max"), 3 * 96),
        (rg.Head(pool="avgmax"), 3 * 192),
    ],
)
@pytest.mark.parametrize("size", [64, (64, 64)])
def test_heads_of_every_form(head: rg.Head, rows: int, size: Any) -> None:
    model = rg.adapt(rg.build_model("test_resnet"), classes=CLASSES, image_size=size, head=head)
    info = info_of(model)
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    assert model(torch.zeros(2, 3, 64, 64)).shape == (2, 3)
    assert info.class_names == tuple(CLASSES)
    assert last.weight.numel() == rows
    assert info.is_new(next(name for name, module in model.named_modules() if module is last))


def test_dropout_of_a_plain_head_is_on_in_training_only() -> None:
    model = rg.adapt(rg.build_model("test_efficientnet"), classes=CLASSES, image_size=32, head=rg.Head(dropout=0.5))
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(model(x), model(x))
    model.train()
    assert not torch.equal(model(x), model(x))


def test_a_non_square_size_is_height_and_width() -> None:
    model = rg.adapt(rg.build_model("test_resnet"), classes=CLASSES, image_size=(64, 96), head=rg.Head(pool="flatten"))
    assert preprocessing_of(model).pixels.size == (64, 96)
    assert model(torch.zeros(1, 3, 64, 96)).shape == (1, 3)


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        ([], "has 0 name"),
        (["cat"], "has 1 name"),
        (["cat", "dog", "cat"], "names 'cat' more than once"),
        ("cat", "list is 'cat'"),
        ([0, 1], r"list is \[0, 1\]"),
    ],
)
def test_class_lists_that_are_none(classes: Any, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        rg.adapt(rg.build_model("test_resnet"), classes=classes)


@pytest.mark.parametrize("head", [None, rg.Head(pool="flatten")])
def test_an_image_size_that_the_network_cannot_take(head: rg.Head | None) -> None:
    model = rg.build_model("inception_v3", num_classes=2)
    with pytest.raises(SettingsError, match="cannot take images of 32x32 pixels"):
        rg.adapt(model, classes=CLASSES, image_size=32, head=head)


def test_a_head_with_its_own_pooling_needs_a_feature_map() -> None:
    with pytest.raises(SettingsError, match="not in a feature map"):
        rg.adapt(rg.build_model("test_vit"), classes=CLASSES, head=rg.Head(pool="avg"))


def test_a_network_of_another_number_of_channels_is_told_apart() -> None:
    model = rg.build_model("test_resnet", in_channels=1)
    colour = default_preprocessing(rg.build_model("test_resnet"))
    with pytest.raises(SettingsError, match="for 3 channels, the network for 1"):
        rg.adapt(model, classes=CLASSES, image_size=64, preprocessing=colour)
    assert preprocessing_of(rg.adapt(model, classes=CLASSES, image_size=64)).channels == "L"


def test_adapting_twice_keeps_the_form_of_the_head_unless_told_otherwise() -> None:
    first = rg.adapt(rg.build_model("test_resnet"), classes=CLASSES, image_size=64, head=rg.Head(dropout=0.5))
    assert info_of(rg.adapt(first, classes=["a", "b"])).args["head"]["dropout"] == 0.5
    second = rg.adapt(first, classes=["a", "b"], image_size=64, head=rg.Head())
    assert "head" not in info_of(second).args
    shaped = rg.adapt(first, classes=["a", "b"], image_size=64, head=rg.Head(pool="avg", hidden=[8]))
    again = rg.adapt(shaped, classes=CLASSES)
    assert info_of(again).args["head"] == info_of(shaped).args["head"]
    assert preprocessing_of(again).pixels.size == (64, 64)
    other = rg.adapt(shaped, classes=CLASSES, image_size=64, head=rg.Head(pool="max"))
    assert other(torch.zeros(1, 3, 64, 64)).shape == (1, 3)
    with pytest.raises(SettingsError, match="already has a head"):
        rg.adapt(shaped, classes=CLASSES, image_size=64, head=rg.Head())


def test_without_classes_the_head_stays_as_it_is() -> None:
    model = rg.build_model("test_resnet")
    smaller = rg.adapt(model, image_size=64)
    assert info_of(smaller).class_names is None
    assert info_of(smaller).new_layers == ()
    assert all(torch.equal(tensor, smaller.state_dict()[name]) for name, tensor in model.state_dict().items())
    with pytest.raises(SettingsError, match="class list"):
        rg.adapt(model, head=rg.Head(dropout=0.5))


def test_the_smallest_image_is_named() -> None:
    with torch.device("meta"):
        model = rg.build_model("vgg11")
        with pytest.raises(SettingsError, match="the smallest is 32x32"):
            rg.adapt(model, classes=CLASSES, image_size=16)


def test_a_users_own_module_gets_a_new_last_layer() -> None:
    model = rg.adapt(Small(), classes=CLASSES, image_size=32)
    assert model.get_submodule("fc").out_features == 3
    assert info_of(model).args["own_module"] is True
    hidden = rg.adapt(Small(), classes=CLASSES, image_size=32, head=rg.Head(hidden=[4], dropout=0.1))
    assert hidden(torch.zeros(1, 3, 32, 32)).shape == (1, 3)
    with pytest.raises(SettingsError, match="pooling cannot be replaced"):
        rg.adapt(Small(), classes=CLASSES, image_size=32, head=rg.Head(pool="avg"))
    with pytest.raises(SettingsError, match="no last dense layer"):
        rg.adapt(nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), classes=CLASSES)


def test_a_model_that_timm_built_counts_as_timms() -> None:
    model = rg.adapt(timm.create_model("test_resnet"), classes=CLASSES, image_size=64)
    assert "own_module" not in info_of(model).args


@pytest.mark.parametrize(
    "arguments", [{"pool": "mean"}, {"hidden": [0]}, {"dropout": 1.0}, {"activation": "sine"}, {"dropout": -1}]
)
def test_a_head_that_cannot_be_is_refused(arguments: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="Invalid settings of Head") as caught:
        rg.Head(**arguments)
    assert len(caught.value.details) == 1


def test_a_module_that_ends_in_a_convolution_of_one_pixel_keeps_its_rows() -> None:
    layers = [nn.Conv2d(3, 8, 3, stride=2), nn.ReLU(), nn.Conv2d(8, 10, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    model = rg.adapt(nn.Sequential(*layers), classes=CLASSES, image_size=32)
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 3)
    turned = rg.adapt(model, classes=[CLASSES[2], "new", CLASSES[0]])
    assert torch.equal(turned.get_parameter("2.weight")[[0, 2]], model.get_parameter("2.weight")[[2, 0]])
    with pytest.raises(SettingsError, match="takes no hidden layers and no dropout"):
        rg.adapt(model, classes=CLASSES, head=rg.Head(hidden=[4]))
