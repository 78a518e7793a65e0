"""Keras's listings, held against published facts about them."""

from __future__ import annotations

import pytest
import timm
import torch

from regraft.errors import SettingsError
from regraft.models.describe.info import ModelInfo, info_of, set_info
from regraft.models.describe.trace import own_tensors
from regraft.models.keras_forms.rows import keras_rows
from regraft.models.layers.aliases import keras_aliases
from regraft.models.layers.layers import list_layers


@pytest.mark.parametrize(
    ("architecture", "version", "count"),
    [("vgg16", "3", 19), ("vgg19", "3", 22), ("resnet50", "3", 175), ("resnet50", "2", 175), ("resnet101", "3", 345)],
)
def test_the_number_of_rows(architecture: str, version: str, count: int) -> None:
    """`len(model.layers)` of keras.applications with include_top=False."""
    assert len(keras_rows(architecture, version)) == count


def test_row_26_from_the_end_of_the_older_resnet50() -> None:
    assert keras_rows("resnet50", "2")[-26][0] == "res5a_branch1"
    assert keras_rows("keras_resnet50", "2")[-1][0] == "avg_pool"


def test_the_order_of_a_block_with_a_shortcut() -> None:
    names = [name for name, _, _ in keras_rows("resnet50") if name.startswith("conv2_block1_")]
    assert [name.removeprefix("conv2_block1_") for name in names] == [
        "1_conv", "1_bn", "1_relu", "2_conv", "2_bn", "2_relu", "0_conv", "3_conv", "0_bn", "3_bn", "add", "out",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "version"), [("vgg16", "3"), ("vgg19", "3"), ("resnet50", "2"), ("resnet50", "3"), ("resnet152", "3")]
)
def test_each_layer_of_the_backbone_has_one_row_with_the_name_that_aliases_give(name: str, version: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name)
    info: ModelInfo = info_of(model)
    rows = keras_rows(name, version)
    owners = [n for n, module in model.named_modules() if own_tensors(module) and not info.is_head(n)]
    assert sorted(module for _, _, module in rows if module) == sorted(owners)
    aliases = keras_aliases(model, name)
    assert all(row in aliases[module] for row, _, module in rows if module)
    info.origin.keras_rows = rows
    layers = list_layers(set_info(model, info))
    assert [layer.alias for layer in layers if layer.part == "backbone"] == [row for row, _, _ in rows]


def test_an_unknown_listing_is_refused() -> None:
    with pytest.raises(SettingsError, match="no listing of 'resnet18'"):
        keras_rows("resnet18")
    with pytest.raises(SettingsError, match="version '4'"):
        keras_rows("resnet50", "4")
