"""The forecast of a run: it changes nothing, counts what a batch keeps, and takes a few seconds."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch

import regraft as rg
from regraft.models.numerics import choose_numerics
from regraft.train.forecast import Forecast, forecast
from regraft.train.forecast_text import render_plan
from tests.train.conftest import small_model

CPU = choose_numerics("cpu", "fp32", 1)


def ask(stages: list[rg.Stage], **settings: Any) -> Forecast:
    model = small_model(("bright", "dark"))
    settings = {"num_train": 100, "num_val": 50, "batch_size": 10, "numerics": CPU, **settings}
    return forecast(model, rg.make_plan(model, stages), **settings)


def test_the_model_stays_as_it_was() -> None:
    model = small_model(("bright", "dark"))
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    flags = [parameter.requires_grad for parameter in model.parameters()]
    plan = rg.make_plan(model, [rg.Stage("a", train="all", optimizer="sgd", lr=1.0, bn="train")])
    forecast(model, plan, num_train=10, num_val=10, batch_size=4, numerics=CPU)
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
    found = ask(stages, num_train=1_000_000, paths=files)
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
    found = forecast(model, plan, num_train=100, num_val=50, batch_size=10, numerics=CPU)
    text = render_plan(model, plan, found)
    for expected in (
        "head: trains head (2 tensors, 514 parameters) on 32x32 images",
        "solved by lbfgs",
        "25 steps (about 5 epochs of 5 steps), batches of 10 x 2, lion, lr all 0.0001, head 0.001, constant",
        "on 64x64 images",
        "1 epoch of 10 steps (10 steps), batches of 10, sgd, lr",
        "whole run: about",
        "estimated from steps on batches of",
        "cpu, fp32, 1 threads",
    ):
        assert expected in text, text
