"""The promise of freezing, over families of networks: random plans, three steps of training, bytes compared."""

from __future__ import annotations

import random
import warnings

import pytest
import timm
import torch
from torch import nn

from regraft.models.describe.trace import trace
from regraft.models.layers.layers import list_layers
from regraft.plan.freezing.audit import Snapshot
from regraft.plan.freezing.freeze import freeze, has_statistics
from regraft.plan.freezing.select import select

QUICK = [
    "test_byobnet",
    "test_convnext",
    "test_convnext2",
    "test_efficientnet",
    "test_efficientnet_evos",
    "test_efficientnet_gn",
    "test_efficientnet_ln",
    "test_mambaout",
    "test_nfnet",
    "test_resnet",
]
FAMILIES = [
    "convnext_atto",
    "convnext_zepto_rms",
    "convnextv2_atto",
    "cs3darknet_focus_s",
    "darknet17",
    "densenet121",
    "dla46_c",
    "eca_resnext26ts",
    "edgenext_xx_small",
    "efficientnet_es",
    "ese_vovnet19b_slim_dw",
    "fastvit_t8",
    "fbnetc_100",
    "gernet_s",
    "ghostnet_050",
    "ghostnetv2_100",
    "hardcorenas_a",
    "hgnetv2_b0",
    "hrnet_w18_small",
    "inception_next_atto",
    "lcnet_035",
    "legacy_seresnet18",
    "mixnet_s",
    "mnasnet_small",
    "mobilenetv2_035",
    "mobilenetv3_small_050",
    "mobilenetv4_conv_small_035",
    "mobileone_s0",
    "nf_regnet_b0",
    "poolformer_s12",
    "regnetx_002",
    "regnety_002",
    "repghostnet_050",
    "repvgg_a0",
    "repvit_m0_9",
    "res2net50_26w_4s",
    "resnet10t",
    "resnet18",
    "rexnet_100",
    "selecsls42",
    "semnasnet_075",
    "skresnet18",
    "spnasnet_100",
    "starnet_s050",
    "tf_efficientnet_lite0",
    "tinynet_e",
    "xception41",
]


def build(name: str, seed: int) -> nn.Module:
    """A stochastic network with 3 classes whose numbers are all random: no gamma of zero hides a branch."""
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            model = timm.create_model(name, num_classes=3, drop_path_rate=0.3, drop_rate=0.3)
        except TypeError:
            model = timm.create_model(name, num_classes=3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    return model


def random_plan(model: nn.Module, chance: random.Random) -> list[str]:
    """Terms of the language that the model takes, drawn at random; the head most of the time."""
    layers = list_layers(model)
    backbone = [layer for layer in layers if layer.part == "backbone"]
    some = chance.choice(backbone).name or "head"
    terms = chance.choice(
        [
            ["stage:-1"],
            [f"last:{chance.randint(1, len(backbone))}"],
            [f"from:{some}"],
            [f"until:{some}"],
            [chance.choice(backbone).name or "head" for _ in range(5)],
            [f"[::{chance.randint(2, 5)}]"],
            ["all", f"!{some}", "!stage:0"],
            ["none"],
        ]
    )
    return [*terms, "head"] if terms == ["none"] or chance.random() < 0.8 else terms


def check(name: str, seed: int) -> None:
    chance = random.Random(f"{name} {seed}")
    model = build(name, seed)
    keys = list(model.state_dict())
    statistics = [layer for layer, module in model.named_modules() if has_statistics(module)]
    while True:
        terms = random_plan(model, chance)
        if any(p.is_floating_point() for layer in select(model, terms) for p in _own(model, layer)):
            break
    weights_and_norms = any(layer not in statistics for layer in select(model, terms))
    policy = chance.choice([None, "train", "affine-only", "frozen"] if weights_and_norms else [None, "train"])
    plan = freeze(model, terms, bn=policy)
    snapshot = Snapshot.take(model, plan)
    parameters = dict(model.named_parameters())
    optimizer = torch.optim.SGD(
        [parameters[name] for name in plan.trainable], lr=0.01, momentum=0.9, weight_decay=0.1, nesterov=True
    )
    for step in range(3):
        model.train(step != 1 or chance.random() < 0.5)  # somebody's loop calls .eval() and .train() as it likes
        optimizer.zero_grad()
        images = torch.randn(4, 3, 64, 64)
        nn.functional.cross_entropy(model(images), torch.tensor([0, 1, 2, 0])).backward()
        nn.utils.clip_grad_norm_([parameters[name] for name in plan.trainable], 1.0)
        optimizer.step()
    audit = snapshot.audit(model, optimizer, stage=name)
    assert audit.verdict == "ok", (terms, policy, audit.violations)
    assert list(model.state_dict()) == keys
    ran = set(trace(model, 64))
    still = {tensor.name for tensor in audit.trainable if not tensor.moved > 0}
    assert {tensor for tensor in still if tensor.rpartition(".")[0] in ran} == set(), (terms, policy)
    assert {t.name for t in audit.trainable} == {n for n, p in model.named_parameters() if p.requires_grad}
    expected = {layer for layer, own in plan.bn.items() if own == "train"}
    assert {buffer.rpartition(".")[0] for buffer in audit.buffers_moved} <= expected


def _own(model: nn.Module, layer: str) -> list[nn.Parameter]:
    return list(model.get_submodule(layer).parameters(recurse=False))


@pytest.mark.parametrize("name", QUICK)
def test_frozen_stays_and_trainable_moves(name: str) -> None:
    check(name, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", QUICK + FAMILIES)
def test_frozen_stays_and_trainable_moves_in_every_family(name: str) -> None:
    for seed in range(10, 13):
        check(name, seed)
