"""The forecast of a run: it changes nothing, counts what a batch keeps, and takes a few seconds."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch

import regraft as rg
from regraft.compute.numerics import choose_numerics
from regraft.training.engine import Engine
from regraft.training.preflight.forecast import Forecast, RunSize, forecast
from regraft.training.preflight.forecast_text import render_plan
from regraft.training.preflight.trial import Costs, Line, Trial
from tests.training.conftest import small_model

CPU = choose_numerics("cpu", "fp32", 1)


def ask(stages: list[rg.Stage], *, train: int = 100, feature_cache: str | int = "auto", **settings: Any) -> Forecast:
    model = small_model(("bright", "dark"))
    return forecast(model, rg.make_plan(model, stages), RunSize(train, 50, 10, feature_cache), CPU, **settings)


def test_the_model_stays_as_it_was() -> None:
    model = small_model(("bright", "dark"))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    flags = [parameter.requires_grad for parameter in model.parameters()]
    plan = rg.make_plan(model, [rg.Stage("a", train="all", optimizer="sgd", lr=1.0, bn="train")])
    forecast(model, plan, RunSize(10, 10, 4), CPU)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert [parameter.requires_grad for parameter in model.parameters()] == flags


def test_memory_of_a_head_is_what_it_keeps() -> None:
    """A linear layer keeps its input; the frozen part before it keeps nothing."""
    small, large = (ask([rg.Stage("head", optimizer="sgd", batch_size=n)]).stages[0].num_bytes for n in (10, 60))
    assert large - small == 50 * 256 * 4
    averaged = ask([rg.Stage("head", optimizer="sgd", batch_size=10, ema=0.9)]).stages[0].num_bytes
    assert averaged - small == (256 * 2 + 2) * 4
    adam = ask([rg.Stage("head", optimizer="adam", batch_size=10)]).stages[0].num_bytes
    assert adam - small == pytest.approx((256 * 2 + 2) * 4, abs=8), "two moments in the place of one"


def test_more_that_trains_takes_more_memory() -> None:
    stages = [rg.Stage(name, train=what, optimizer="sgd") for name, what in (("a", "head"), ("b", "all"))]
    head, everything = ask(stages).stages
    assert everything.num_bytes > head.num_bytes
    assert everything.seconds > 0
    assert head.length is not None
    assert (head.length.steps, head.length.epochs) == (100, 10)


def test_it_takes_seconds_whatever_the_run_takes(photos: Path) -> None:
    files = [str(path) for path in photos.rglob("*.png")]
    stages = [rg.Stage("a", optimizer="sgd", epochs=1000), rg.Stage("b", train="all", optimizer="sgd", epochs=1000)]
    began = time.monotonic()
    found = ask(stages, train=1_000_000, paths=files)
    assert time.monotonic() - began < 60
    assert found.seconds > 1000
    assert found.decoding > 1
    assert found.pixel_bytes == 1_000_050 * 32 * 32 * 3


def test_the_text_says_how_it_is_known() -> None:
    model = small_model(("bright", "dark"))
    stages = [
        rg.Stage("head"),
        rg.Stage(
            "b", train=["stage:-1", "head"], optimizer="lion", lr={"all": 1e-4, "head": 1e-3}, steps=25, accumulate=2
        ),
        rg.Stage("c", train="all", optimizer="sgd", layer_decay=0.5, epochs=1, schedule="one-cycle", image_size=64),
    ]
    plan = rg.make_plan(model, stages)
    found = forecast(model, plan, RunSize(100, 50, 10), CPU)
    text = render_plan(model, plan, found)
    for expected in (
        "head: trains head (2 tensors, 514 parameters) on 32x32 images",
        "fit with L-BFGS",
        "25 steps (about 5 epochs of 5 steps), batches of 10 x 2, lion, lr all 0.0001, head 0.001, constant",
        "on 64x64 images",
        "1 epoch of 10 steps (10 steps), batches of 10, sgd, lr",
        "whole run: about",
        "estimated from steps on batches of",
        "cpu, fp32, 1 thread",
    ):
        assert expected in text, text


def test_a_batch_costs_more_than_its_images() -> None:
    """What a step costs at all is counted for each step, and not for each image of a small trial."""
    line = Line.through({4: 0.10, 32: 0.38})
    assert line.of(1, 4) == pytest.approx(0.10)
    assert line.of(1, 32) == pytest.approx(0.38)
    assert line.of(5, 140) == pytest.approx(5 * 0.06 + 140 * 0.01)
    assert Line.through({4: 0.08}).of(2, 16) == pytest.approx(0.32), "one size says nothing of what any batch costs"
    assert Line.through({4: 0.02, 8: 0.08}).of(1, 16) == pytest.approx(0.16), "no batch costs less than nothing"
    assert Line.through({4: 0.09, 8: 0.08}).of(1, 16) == pytest.approx(0.08), "noise is no gain"


def test_images_that_do_not_vary_pass_the_frozen_part_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The frozen part is most of the work here: 10 epochs that see it once, or each time."""
    costs = Costs(0.0, 0.0, 1.0, 1.0, 16, Line(0.0, 0.0), Line(0.0, 0.0), 0.0, 0, 0, 4)
    monkeypatch.setattr(Trial, "costs", lambda self, seconds: costs)
    flipped = rg.Augment(flip="horizontal")
    still, varied, fewer = (
        ask([rg.Stage("a", optimizer="sgd", augment=augment)], feature_cache=cache).stages[0].seconds
        for augment, cache in ((None, "auto"), (flipped, "auto"), (flipped, 2))
    )
    assert still == pytest.approx(112 + 64, abs=1), "100 images and 50, in whole batches of 16"
    assert varied == pytest.approx(10 * 160 + 64, abs=1), "10 batches of 10, each filled up to 16"
    assert fewer == pytest.approx(2 * 160 + 64, abs=1)
    off = ask([rg.Stage("a", optimizer="sgd")], feature_cache="off").stages[0].seconds
    assert off == pytest.approx(10 * 160 + 10 * 64, abs=1)


def test_what_comes_before_and_after_belongs_to_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    costs = Costs(0.0, 0.0, 0.0, 0.0, 16, Line(0.0, 0.1), Line(0.0, 0.0), 0.0, 0, 0, 4)
    monkeypatch.setattr(Trial, "costs", lambda self, seconds: costs)
    stages = [rg.Stage("a", optimizer="sgd")]
    alone, whole = ask(stages), ask(stages, starting=10.0, building=2.0)
    assert whole.seconds - alone.seconds == pytest.approx(10 + 3 * 2), "the network is filled, saved and loaded too"


def test_without_time_one_step_is_all_that_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model(("bright", "dark"))
    stage = rg.make_plan(model, [rg.Stage("a", train="all", optimizer="sgd")]).stages[0]
    steps = []
    trial = Trial(model, stage, (32, 32), Engine(CPU), batch_size=64)
    monkeypatch.setattr(trial.optimizer, "step", lambda: steps.append(1))
    costs = trial.costs(0.0)
    assert (costs.num_images, len(steps)) == (4, 1)
    assert costs.step.each > 0


def test_what_a_trained_network_learns_of_itself_takes_a_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """50 images are measured at the end; 50 to validate and up to 1,000 to train on pass once more, but for a head."""
    costs = Costs(0.0, 0.0, 0.0, 0.0, 16, Line(0.0, 0.0), Line(0.0, 0.1), 0.0, 0, 0, 4)
    monkeypatch.setattr(Trial, "costs", lambda self, seconds: costs)
    trained, many, solved = (
        ask([stage], train=train).measuring
        for stage, train in (
            (rg.Stage("a", optimizer="sgd"), 100),
            (rg.Stage("a", optimizer="sgd"), 5000),
            (rg.Stage("a", optimizer="lbfgs"), 100),
        )
    )
    assert trained == pytest.approx(20, abs=1)
    assert many == pytest.approx(110, abs=1)
    assert solved == pytest.approx(5, abs=1)


def test_what_is_validated_at_a_stages_end_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    costs = Costs(0.0, 0.0, 0.0, 0.0, 16, Line(0.0, 0.0), Line(0.0, 1.0), 0.0, 0, 0, 4)
    monkeypatch.setattr(Trial, "costs", lambda self, seconds: costs)
    kinds: list[dict[str, Any]] = [{}, {"soup": True}, {"soup": True, "interpolate": True}]
    plain, soup, both = (
        ask([rg.Stage("a", train="all", optimizer="sgd", epochs=6, **kind)]).stages[0].seconds for kind in kinds
    )
    assert soup - plain == pytest.approx(2 * 50), "epochs 4 to 6"
    assert both - plain == pytest.approx(5 * 50)
