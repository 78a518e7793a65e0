"""Published figures of two well-known fine-tunings, counted on our plans."""

from __future__ import annotations

import timm
import torch
from torch import nn

from regraft.models.describe.info import ModelInfo, info_of, set_info
from regraft.models.describe.provenance import Provenance
from regraft.models.keras_forms.rows import keras_rows
from regraft.models.layers.layers import list_layers
from regraft.models.surgery.surgery import adapt
from regraft.plan.freezing.freeze import freeze
from regraft.plan.freezing.select import select
from regraft.settings.head import Head


def test_vgg16_with_a_dense_head_at_150_pixels() -> None:
    """Chollet's cats and dogs: VGG16 base + Flatten + Dense(256) + Dropout + Dense."""
    with torch.device("meta"):
        base = timm.create_model("vgg16", num_classes=0)
    base.pre_logits = nn.Identity()
    model = nn.Sequential(base.features, nn.Flatten(), nn.Linear(512 * 4 * 4, 256), nn.Dropout(0.5), nn.Linear(256, 1))
    keys = list(model.state_dict())
    set_info(model, ModelInfo("vgg16", head=("2", "4"), origin=Provenance(new_layers=("2", "4"))))
    assert len(freeze(model, "all").trainable) == 30
    assert len(freeze(model, "head").trainable) == 4
    assert freeze(model, ["0.24", "0.26", "0.28", "head"]).layers == ("0.24", "0.26", "0.28", "2", "4")
    assert len(freeze(model, ["0.24", "0.26", "0.28", "head"]).trainable) == 10
    assert list(model.state_dict()) == keys


def test_adapted_vgg16_counts_the_same() -> None:
    model = adapt(
        timm.create_model("vgg16"),
        classes=["cat", "dog"],
        image_size=150,
        head=Head(pool="flatten", hidden=[256], dropout=0.5),
    )
    assert [len(freeze(model, terms).trainable) for terms in ("all", "head", "block5,head")] == [30, 4, 10]
    assert select(model, "stage:-1") == select(model, "block5")


def keras_resnet50(version: str) -> nn.Module:
    """The Keras form (biases in the convolutions) without a top, and Dense(80) on its 2,048 pooled features."""
    with torch.device("meta"):
        model = timm.create_model("resnet50", num_classes=80)
        for module in model.modules():
            if isinstance(module, nn.Conv2d):
                module.bias = nn.Parameter(torch.zeros(module.out_channels))
    info = info_of(model)
    info.origin = Provenance(keras_rows=keras_rows("resnet50", version), new_layers=("fc",))
    return set_info(model, info)


def test_keras_resnet50_with_its_last_26_rows_and_a_head() -> None:
    model = keras_resnet50("2")
    plan = freeze(model, ["last:26", "head"])
    layers = list_layers(model)
    total, trainable = sum(row.num_parameters for row in layers), sum(row.num_trainable for row in layers)
    assert (total, trainable, total - trainable) == (23_751_632, 11_202_640, 12_548_992)
    assert plan.layers[0] == "layer4.0.bn3"  # bn5a_branch2c, the row after res5a_branch1
    assert "layer4.0.downsample.0.bias" in plan.trainable
    assert "layer4.0.conv3.weight" in plan.frozen
    assert {plan.bn[name] for name in plan.bn if name in plan.layers} == {"affine-only"}
    assert plan.moving == ()


def test_all_but_the_last_26_rows_is_the_rest_of_the_backbone() -> None:
    model = keras_resnet50("2")
    assert select(model, "[:-26]") == select(model, "backbone") - select(model, "last:26")
    assert select(model, "from:res5b_branch2a") < select(model, "last:26")
