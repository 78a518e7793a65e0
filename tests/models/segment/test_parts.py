"""Encoder, decoder and head: listing, selectors, slices, freezing, rates."""

from __future__ import annotations

import pytest
import torch
from tests.models.segment.networks import SMALL, vgg_segnet, vgg_unet
from torch import nn

import regraft as rg
from regraft.errors import SettingsError
from regraft.models.layers.layers import format_table, list_layers
from regraft.plan.freezing.audit import Snapshot
from regraft.plan.freezing.freeze import freeze
from regraft.plan.freezing.select import select
from regraft.settings.stage import Stage
from regraft.training.objective.optim import build_optimizer


@pytest.fixture(scope="module")
def unet() -> nn.Module:
    return vgg_unet()


@pytest.fixture
def small() -> nn.Module:
    return rg.build_model("unet", encoder=SMALL, classes=3, filters=[8, 8, 8, 8])


def names(model: nn.Module, prefix: str) -> set[str]:
    return {name for name, module in model.named_modules() if name.startswith(prefix) and list(module._parameters)}


def test_the_listing_of_a_vgg_is_keras_s_also_what_is_cut_off(unet: nn.Module) -> None:
    layers = list_layers(unet, 32)
    encoder = [layer for layer in layers if layer.part == "backbone"]
    assert [layer.index for layer in encoder] == list(range(19))
    assert [layer.alias for layer in encoder[:4]] == ["input_layer", "block1_conv1", "block1_conv2", "block1_pool"]
    assert (encoder[17].name, encoder[17].alias, encoder[18].alias) == (
        "encoder.features.28", "block5_conv3", "block5_pool",
    )  # fmt: skip
    assert [layer.part for layer in layers[19:]] == ["decoder"] * 16 + ["head"]
    assert layers[-1].output_shape == (3, 32, 32)
    table = format_table(layers)
    assert "decoder  decoder.stage1.convs.conv1" in table
    assert "   head  classifier" in table
    shallow = list_layers(vgg_unet(depth=3), 32)
    assert [layer.alias for layer in shallow if layer.part == "backbone"] == [layer.alias for layer in encoder]
    assert [layer.owns for layer in shallow[11:19]] == [False] * 8


def test_selectors(unet: nn.Module) -> None:
    encoder, decoder = select(unet, "encoder"), select(unet, "decoder")
    assert encoder == names(unet, "encoder.") == select(unet, "backbone") == select(unet, "[:19]")
    assert decoder == names(unet, "decoder.")
    assert select(unet, "head") == {"classifier"}
    assert select(unet, "!encoder") == decoder | {"classifier"}
    assert select(unet, "all") == encoder | decoder | {"classifier"}
    assert select(unet, "[:15]") == {name for name in encoder if int(name.split(".")[-1]) < 24}
    assert select(unet, "last:4") == select(unet, "block5") == select(unet, "stage:-1") == {
        "encoder.features.24", "encoder.features.26", "encoder.features.28",
    }  # fmt: skip
    assert select(unet, "from:block5_conv2") == {"encoder.features.26", "encoder.features.28"}
    assert select(unet, "until:decoder.stage1.convs.bn2") == encoder | names(unet, "decoder.stage1.")
    assert select(unet, "until:classifier") == select(unet, "all")
    assert select(unet, "from:decoder.stage4") == names(unet, "decoder.stage4.")
    assert select(unet, "decoder.stage2") == names(unet, "decoder.stage2.")


def test_a_network_without_a_decoder_has_none() -> None:
    with pytest.raises(SettingsError, match="decoder"):
        select(rg.build_model(SMALL), "decoder")


def train(model: nn.Module, plan_stage: Stage, count: int = 3) -> torch.optim.Optimizer:
    optimizer = build_optimizer(model, plan_stage)
    for step in range(count):
        torch.manual_seed(step)
        optimizer.zero_grad()
        model.train()(torch.randn(2, 3, 40, 36)).square().mean().backward()
        optimizer.step()
    return optimizer


@pytest.mark.parametrize("bn", [None, "train"])
def test_a_frozen_encoder_does_not_move(small: nn.Module, bn: str | None) -> None:
    """Parameters and buffers byte for byte over three steps with momentum and weight decay; all of the rest moves."""
    plan = freeze(small, "!encoder", bn=bn)
    assert set(plan.bn.values()) == {"frozen", "train"}
    snapshot = Snapshot.take(small, plan)
    before = {name: tensor.clone() for name, tensor in small.state_dict().items()}
    stage = Stage("decoder", train="!encoder", optimizer="sgd", lr=0.05, weight_decay=0.01)
    audit = snapshot.audit(small, train(small, stage), stage="decoder")
    audit.raise_if_violated()
    after = small.state_dict()
    moved = {name for name, tensor in after.items() if not torch.equal(tensor, before[name])}
    assert moved == {name for name in after if not name.startswith("encoder.")}
    assert all(tensor.moved > 0 for tensor in audit.trainable)


def test_freezing_part_of_the_encoder_by_a_slice() -> None:
    model = vgg_segnet(dropout=0.5)
    plan = freeze(model, "[11:],decoder,head")
    assert {name for name in plan.trainable if name.startswith("encoder.")} == {
        f"encoder.features.{place}.{part}" for place in (17, 19, 21, 24, 26, 28) for part in ("weight", "bias")
    }
    model.train()
    features = dict(model.encoder.features.named_children())
    assert [features[f"drop{block}"].training for block in (3, 4, 5)] == [True, True, True]
    freeze(model, "[15:],decoder,head")
    model.train()
    assert [features[f"drop{block}"].training for block in (3, 4, 5)] == [False, True, True]


def test_a_random_decoder_is_not_frozen(small: nn.Module) -> None:
    with pytest.raises(SettingsError, match="The decoder is frozen while its weights are random"):
        freeze(small, "head")
    with pytest.raises(SettingsError, match="The head is frozen"):
        freeze(small, "decoder")


def test_rates_of_the_parts(small: nn.Module) -> None:
    freeze(small, "all")
    optimizer = build_optimizer(small, Stage("all", train="all", lr=0.1, backbone_lr=0.1, optimizer="adamw"))
    rates = {group["name"]: group["lr"] for group in optimizer.param_groups}
    assert rates == pytest.approx({"backbone": 0.01, "decoder": 0.1, "head": 0.1})
