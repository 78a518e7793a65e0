"""The listing of a model: order, names, shapes and counts, held against published figures."""

from __future__ import annotations

import warnings
from functools import cache

import pytest
import timm
import torch
from torch import Tensor, nn

from regraft.errors import SettingsError
from regraft.models.describe.info import ModelInfo, info_of, set_info
from regraft.models.describe.provenance import Provenance
from regraft.models.describe.trace import smallest_size
from regraft.models.layers.aliases import keras_aliases
from regraft.models.layers.layers import Layer, format_table, list_layers, num_parameters


@cache
def network(name: str) -> nn.Module:
    with torch.device("meta"), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return timm.create_model(name)


def by_name(model: nn.Module, size: int | tuple[int, int] | None = None) -> dict[str, Layer]:
    return {layer.name: layer for layer in list_layers(model, size)}


def test_shapes_of_resnet50_at_128_pixels() -> None:
    layers = by_name(network("resnet50"), 128)
    assert layers["conv1"].output_shape == (64, 64, 64)
    assert layers["layer4.2.conv3"].output_shape == (2048, 4, 4)
    assert layers["fc"].output_shape == (1000,)


def test_images_need_not_be_square() -> None:
    assert by_name(network("resnet50"), (128, 256))["layer4.2.conv3"].output_shape == (2048, 4, 8)


def test_a_size_that_is_too_small_is_told() -> None:
    with pytest.raises(SettingsError, match="the smallest is 32x32 pixels"):
        list_layers(network("vgg16"), 8)
    assert smallest_size(network("vgg16")) == 32
    assert list_layers(network("vgg16"), 32)[0].output_shape == (64, 32, 32)
    assert smallest_size(nn.Sequential(nn.Linear(5, 4), nn.Linear(4, 2))) is None


def test_counts_are_keras_s() -> None:
    """keras.applications' ResNet50 has biases in its convolutions; without these, and counters, all else is equal."""
    model = network("resnet50")
    layers = list_layers(model)
    total = sum(layer.num_parameters for layer in layers)
    biases = sum(m.out_channels for m in model.modules() if isinstance(m, nn.Conv2d))
    assert total + biases == 25_636_712  # as published for keras.applications.ResNet50 with its top
    assert by_name(model)["fc"].num_parameters == 2_049_000
    norm = by_name(model)["bn1"]
    assert (norm.num_parameters, norm.num_trainable, norm.num_non_trainable) == (256, 128, 128)


def test_vgg16_has_the_published_parameters() -> None:
    layers = list_layers(network("vgg16"))
    assert sum(layer.num_parameters for layer in layers) == 138_357_544
    assert sum(layer.num_parameters for layer in layers if layer.part == "backbone") == 14_714_688


def test_frozen_parameters_are_not_counted_as_trainable() -> None:
    model = timm.create_model("test_resnet")
    model.fc.weight.requires_grad_(False)
    assert num_parameters(model.fc) == (97_000, 1000)
    assert by_name(model)["fc"].num_non_trainable == 96_000


@pytest.mark.parametrize("name", ["resnet50", "test_convnext", "test_efficientnet", "test_byobnet", "lcnet_035"])
def test_every_module_that_owns_a_tensor_is_listed_once_and_the_head_last(name: str) -> None:
    model = network(name)
    layers = list_layers(model)
    owners = {n for n, m in model.named_modules() if [*m.parameters(recurse=False), *m.buffers(recurse=False)]}
    assert sorted(layer.name for layer in layers) == sorted(owners)
    backbone = [layer for layer in layers if layer.part == "backbone"]
    assert [layer.index for layer in backbone] == list(range(len(backbone)))
    assert all(layer.index is None for layer in layers[len(backbone) :])
    info = info_of(model)
    assert {layer.name for layer in layers[len(backbone) :]} == {name for name in owners if info.is_head(name)}


def test_norms_with_an_activation_inside_are_layers() -> None:
    layers = by_name(network("test_resnet"))
    assert layers["bn1"].kind == "BatchNorm2d"
    assert by_name(network("test_efficientnet"))["bn1"].kind == "BatchNormAct2d"


class Backwards(nn.Module):
    """Registered in another order than run, with a layer that never runs and one used by its weight alone."""

    def __init__(self) -> None:
        super().__init__()
        self.out = nn.Linear(4, 2)
        self.second = nn.Conv2d(4, 4, 3)
        self.by_weight = nn.Conv2d(4, 4, 1)
        self.first = nn.Conv2d(3, 4, 3)
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, images: Tensor) -> Tensor:
        features = self.second(self.first(images)) * self.scale
        return self.out(nn.functional.conv2d(features, self.by_weight.weight).mean((2, 3)))


def test_layers_stand_in_the_order_in_which_they_run() -> None:
    layers = list_layers(Backwards(), 32)
    assert [layer.name for layer in layers] == ["", "first", "second", "by_weight", "out"]
    assert layers[3].output_shape is None
    assert layers[0].num_parameters == 1


def test_a_module_that_takes_no_images_is_listed_in_order_of_registration() -> None:
    model = nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2))
    assert [(layer.name, layer.part, layer.output_shape) for layer in list_layers(model)] == [
        ("0", "backbone", None),
        ("2", "head", None),
    ]


@pytest.mark.parametrize(
    ("name", "module", "aliases"),
    [
        ("vgg16", "features.24", ("block5_conv1",)),
        ("vgg16", "features.30", ("block5_pool",)),
        ("vgg19", "features.34", ("block5_conv4",)),
        ("vgg16_bn", "features.40", ("block5_conv3",)),
        ("vgg16", "pre_logits.fc2", ("fc2",)),
        ("resnet50", "conv1", ("conv1_conv", "conv1")),
        ("resnet50", "bn1", ("conv1_bn", "bn_conv1")),
        ("resnet50", "layer4.2.conv3", ("conv5_block3_3_conv", "res5c_branch2c")),
        ("resnet50", "layer4.0.downsample.0", ("conv5_block1_0_conv", "res5a_branch1")),
        ("resnet50", "layer4.0.downsample.1", ("conv5_block1_0_bn", "bn5a_branch1")),
        ("resnet50", "layer4.2", ("conv5_block3_out",)),
        ("resnet50", "fc", ("predictions", "fc1000")),
        ("resnet101", "layer3.22.bn2", ("conv4_block23_2_bn",)),
        ("densenet121", "features.denseblock4.denselayer16.conv2", ("conv5_block16_2_conv",)),
        ("densenet121", "features.transition1.norm", ("pool2_bn",)),
        ("densenet121", "features.norm5", ("bn",)),
        ("efficientnet_b0", "blocks.0.0.conv_pw", ("block1a_project_conv",)),
        ("efficientnet_b0", "blocks.5.3.se.conv_reduce", ("block6d_se_reduce",)),
        ("tf_efficientnet_b0", "conv_head", ("top_conv",)),
        ("mobilenetv2_100", "blocks.0.0.conv_dw", ("expanded_conv_depthwise",)),
        ("mobilenetv2_100", "blocks.6.0.conv_pwl", ("block_16_project",)),
        ("mobilenetv2_100", "bn2", ("Conv_1_bn",)),
    ],
)
def test_names_in_keras(name: str, module: str, aliases: tuple[str, ...]) -> None:
    assert keras_aliases(network(name), info_of(network(name)).architecture)[module] == aliases


@pytest.mark.parametrize(
    ("name", "rest"),
    [
        ("vgg16", set()),
        ("resnet50", set()),
        ("densenet121", set()),
        ("efficientnet_b0", set()),
        ("mobilenetv2_100", set()),
    ],
)
def test_every_layer_of_a_keras_family_has_a_name_of_its_own(name: str, rest: set[str]) -> None:
    layers = list_layers(network(name))
    assert {layer.name for layer in layers if layer.alias is None} == rest
    names = [alias for layer in layers for alias in layer.aliases]
    assert len(names) == len(set(names))


def test_families_that_keras_does_not_have_have_no_aliases() -> None:
    assert keras_aliases(network("test_convnext"), "test_convnext") == {}
    assert keras_aliases(nn.Sequential(nn.Linear(2, 2)), "vgg16") == {}


def test_a_keras_form_lists_keras_s_rows() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model.append(nn.Linear(4, 2))
    rows = [
        ("input_1", "InputLayer", None),
        ("conv", "Conv2D", "0"),
        ("relu", "Activation", None),
        ("conv2", "Conv2D", "2"),
        ("pool", "GlobalAveragePooling2D", None),
    ]
    set_info(model, ModelInfo("keras_small", head=("5",), origin=Provenance(keras_rows=rows)))
    layers = list_layers(model, 32)
    assert [(layer.index, layer.alias, layer.name, layer.owns) for layer in layers] == [
        (0, "input_1", "input_1", False),
        (1, "conv", "0", True),
        (2, "relu", "relu", False),
        (3, "conv2", "2", True),
        (4, "pool", "pool", False),
        (None, None, "5", True),
    ]
    assert layers[2].kind == "Activation"


def test_the_table_shows_each_layer_and_the_totals() -> None:
    model = timm.create_model("test_resnet", num_classes=2)
    for parameter in model.layer4.parameters():
        parameter.requires_grad_(False)
    layers = list_layers(model, 64)
    lines = format_table(layers).splitlines()
    assert len(lines) == len(layers) + 3
    assert lines[0].split() == ["index", "name", "alias", "type", "output", "parameters", "trainable"]
    first = next(line for line in lines if " layer4.0.conv1 " in line)
    assert first.split()[0] == str(next(layer.index for layer in layers if layer.name == "layer4.0.conv1"))
    assert first.split()[-1] == "0"
    assert lines[-2].split()[:2] == ["head", "fc"]
    total = sum(t.numel() for t in (*model.parameters(), *model.buffers()) if t.is_floating_point())
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert lines[-1] == f"{total:,} parameters: {trainable:,} trainable, {total - trainable:,} not"


def test_the_table_writes_shapes_as_height_width_channels() -> None:
    lines = format_table(list_layers(network("resnet50"), 128)).splitlines()
    assert any("layer4.2.conv3" in line and "4×4×2048" in line for line in lines)
