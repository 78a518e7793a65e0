"""`lr: auto`: a rate to fine-tune a network with; the plan, and with it the run's recipe, has the number."""

from __future__ import annotations

import pytest

import regraft as rg


@pytest.mark.parametrize(
    ("name", "rate"),
    [("test_resnet", 6e-4), ("test_vit", 6e-4), ("test_convnext", 6e-4), ("alexnet", 1e-4), ("keras_vgg16", 1e-4)],
)
def test_networks_without_norms_take_smaller_steps(name: str, rate: float) -> None:
    model = rg.build_model(name, classes=2)
    (stage,) = rg.make_plan(model, [rg.Stage("all", train="all", optimizer="adamw", lr="auto")])
    assert stage.lr == rate


def test_other_optimizers_take_their_own_default_and_a_number_stays() -> None:
    model = rg.build_model("test_resnet", classes=2)
    stages = [rg.Stage(name, train="all", optimizer=name, lr="auto") for name in ("sgd", "lion")]
    plain = [rg.Stage(name, train="all", optimizer=name) for name in ("sgd", "lion")]
    auto = [stage.lr for stage in rg.make_plan(model, stages)]
    assert all(isinstance(rate, float) for rate in auto)
    defaults = [rg.make_plan(model, [stage]).stages[0] for stage in plain]
    assert auto == [default_of(stage) for stage in defaults]
    (kept,) = rg.make_plan(model, [rg.Stage("all", train="all", optimizer="adamw", lr=0.02)])
    assert kept.lr == 0.02


def default_of(stage: rg.Stage) -> float:
    from regraft.plan.optimizers import learning_rate

    return learning_rate(stage)


def test_what_is_compared_with_the_rate_is_compared_with_the_number() -> None:
    model = rg.build_model("alexnet", classes=2)
    schedule = rg.Schedule("cosine", min_lr=5e-4)
    with pytest.raises(rg.SettingsError) as caught:
        rg.make_plan(model, [rg.Stage("all", train="all", optimizer="adamw", lr="auto", schedule=schedule)])
    assert "min_lr is above the learning rate" in str(caught.value.details)
