"""Which rate each parameter trains at: by part, by selector, by depth; and where weight decay is."""

from __future__ import annotations

import pytest
import timm
import torch
from timm.optim import param_groups_layer_decay, param_groups_weight_decay
from torch import nn

import regraft as rg
from regraft.errors import SettingsError
from regraft.plan.freezing.freeze import freeze
from regraft.plan.optimizers import default_rate, has_momentum
from regraft.plan.rates import rates_of
from regraft.settings.optimizers import OPTIMIZERS
from regraft.training.objective.optim import build_optimizer


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return rg.adapt(rg.build_model("test_resnet"), classes=("a", "b"), image_size=32)


def groups(model: nn.Module, stage: rg.Stage) -> dict[str, tuple[float, float, set[str]]]:
    freeze(model, stage.selectors)
    return {
        group["name"]: (group["lr"], group["weight_decay"], set(group["names"]))
        for group in build_optimizer(model, stage).param_groups
    }


def test_one_rate_and_a_factor_for_the_backbone(model: nn.Module) -> None:
    found = groups(model, rg.Stage("a", train="all", optimizer="adamw", lr=1e-2, backbone_lr=0.1))
    assert {name: rate for name, (rate, _, _) in found.items()} == {"head": 1e-2, "backbone": pytest.approx(1e-3)}
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert set.union(*(names for _, _, names in found.values())) == trainable


def test_the_last_selector_that_a_layer_is_under_counts(model: nn.Module) -> None:
    stage = rg.Stage("a", train=["layer4", "head"], optimizer="sgd", lr={"all": 1e-4, "layer4": 1e-3, "head": 1e-2})
    with pytest.raises(SettingsError) as caught:
        groups(model, stage)
    assert caught.value.details == ("lr: 'all' has no effect: later entries match all of its layers",)
    stage = rg.Stage(
        "a", train=["layer3", "layer4", "head"], optimizer="sgd", lr={"all": 1e-4, "layer4": 1e-3, "head": 1e-2}
    )
    found = groups(model, stage)
    assert {name: rate for name, (rate, _, _) in found.items()} == {"all": 1e-4, "layer4": 1e-3, "head": 1e-2}
    assert all(name.startswith("layer3.") for name in found["all"][2])


def test_all_mistakes_in_the_rates_at_once(model: nn.Module) -> None:
    stage = rg.Stage("a", train=["layer4", "head"], lr={"layer9": 1e-3, "layer1": 1e-3, "head": 1e-2})
    with pytest.raises(SettingsError) as caught:
        rg.make_plan(model, [stage])
    text = str(caught.value)
    assert "'layer9' matches no layer" in text
    assert "nothing under 'layer1' trains in this stage" in text


def test_a_layer_without_a_rate_is_named(model: nn.Module) -> None:
    with pytest.raises(SettingsError, match=r"no entry matches layer4.*which trains"):
        rg.make_plan(model, [rg.Stage("a", train=["layer4", "head"], optimizer="sgd", lr={"head": 1e-2})])


@pytest.mark.parametrize("name", ["test_resnet", "test_efficientnet", "test_vit", "test_convnext"])
def test_layer_decay_equals_timms(name: str) -> None:
    model = timm.create_model(name, num_classes=3)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    stage = rg.Stage("a", train="all", optimizer="adamw", lr=1.0, layer_decay=0.7)
    rates = rates_of(model, stage, [name for name, _ in model.named_parameters()])
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    theirs = {
        names[id(parameter)]: group["lr_scale"]
        for group in param_groups_layer_decay(model, layer_decay=0.7)
        for parameter in group["params"]
    }
    assert {name: rate.lr for name, rate in rates.items()} == pytest.approx(theirs)


def test_layer_decay_of_a_users_own_module() -> None:
    layers = [nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.ReLU()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    stage = rg.Stage("a", train="all", optimizer="sgd", lr=1.0, layer_decay=0.5)
    rates = rates_of(model, stage, [name for name, _ in model.named_parameters()])
    assert {name: rate.lr for name, rate in rates.items()} == {
        "0.weight": 0.25, "0.bias": 0.25, "1.weight": 0.25, "1.bias": 0.25,
        "3.weight": 0.5, "3.bias": 0.5, "7.weight": 1.0, "7.bias": 1.0,
    }  # fmt: skip


@pytest.mark.parametrize("name", ["test_resnet", "test_vit"])
def test_weight_decay_spares_what_timm_spares(name: str) -> None:
    model = timm.create_model(name, num_classes=3)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    listed = model.no_weight_decay() if hasattr(model, "no_weight_decay") else ()
    theirs = {
        names[id(parameter)]
        for group in param_groups_weight_decay(model, 0.1, no_weight_decay_list=listed)
        for parameter in group["params"]
        if group["weight_decay"] == 0
    }
    optimizer = build_optimizer(model, rg.Stage("a", train="all", optimizer="adamw", weight_decay=0.1))
    ours = {name for group in optimizer.param_groups if group["weight_decay"] == 0 for name in group["names"]}
    assert ours == theirs
    everywhere = rg.Stage("a", train="all", optimizer="adamw", weight_decay=0.1, decay_norm_and_bias=True)
    assert {group["weight_decay"] for group in build_optimizer(model, everywhere).param_groups} == {0.1}


def test_sgd_is_nesterov_unless_told_otherwise(model: nn.Module) -> None:
    freeze(model, "head")
    settings = {
        "sgd": rg.Stage("a", optimizer="sgd"),
        "plain": rg.Stage("a", optimizer="momentum", momentum=0.8),
        "none": rg.Stage("a", optimizer="sgd", momentum=0.0),
        "told": rg.Stage("a", optimizer="sgd", optimizer_args={"nesterov": False}),
    }
    found = {name: build_optimizer(model, stage).param_groups[0] for name, stage in settings.items()}
    assert {name: (group["momentum"], group["nesterov"]) for name, group in found.items()} == {
        "sgd": (0.9, True), "plain": (0.8, False), "none": (0.0, False), "told": (0.9, False),
    }  # fmt: skip


def test_arguments_of_an_optimizer(model: nn.Module) -> None:
    freeze(model, "head")
    stage = rg.Stage("a", optimizer="adamw", optimizer_args={"betas": [0.8, 0.9], "eps": 1e-6})
    group = build_optimizer(model, stage).param_groups[0]
    assert (group["betas"], group["eps"]) == ((0.8, 0.9), 1e-6)
    for wrong in ({"bettas": 1}, {"betas": [2, 3]}):
        with pytest.raises(SettingsError, match="does not take its settings"):
            build_optimizer(model, rg.Stage("a", optimizer="adamw", optimizer_args=wrong))


def test_unknown_and_unusable_optimizers_say_why() -> None:
    for name, reason in {
        "adamm": "did you mean 'adam",
        "kron": "random numbers of its own",
        "adahessian": "second derivatives",
        "fusedadam": "the package apex",
    }.items():
        with pytest.raises(SettingsError) as caught:
            rg.Stage("a", optimizer=name)
        assert reason in str(caught.value)


def test_default_rates_are_the_optimizers_own_where_regraft_has_none() -> None:
    assert default_rate("sgd") == 1e-2
    assert default_rate("lion") == 1e-4
    assert default_rate("adadelta") == 1.0
    assert default_rate("adafactor") == 1e-3
    assert has_momentum("sgd")
    assert not has_momentum("adamw")
    assert {"lion", "lamb", "sgd", "adamw", "lbfgs", "auto"} <= set(OPTIMIZERS)


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name not in ("auto", "lbfgs")])
def test_every_optimizer_takes_a_step(name: str) -> None:
    torch.manual_seed(0)
    model, inputs = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)), torch.randn(8, 4)
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = build_optimizer(model, rg.Stage("a", train="all", optimizer=name, weight_decay=0.01, lr=0.1))
    for _ in range(2):  # the first step of ADOPT takes in the gradient and moves nothing
        optimizer.zero_grad()
        model(inputs).square().sum().backward()
        optimizer.step()
    assert any(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
