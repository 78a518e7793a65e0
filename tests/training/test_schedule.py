"""Schedules equal torch's and timm's, step by step."""

from __future__ import annotations

import warnings
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from timm.scheduler import CosineLRScheduler, MultiStepLRScheduler, StepLRScheduler
from torch.optim import lr_scheduler

import regraft as rg
from regraft.plan.length import length_of
from regraft.training.objective.schedule import momentum_at, rate_at

BASES = [0.1, 0.003]
NUM_IMAGES, BATCH = 40, 8  # five steps in an epoch


def ours(stage: rg.Stage, num_images: int = NUM_IMAGES) -> list[list[float]]:
    length = length_of(stage, num_images, BATCH)
    return [[rate_at(stage, base, step, length) for base in BASES] for step in range(length.steps)]


def optimizer(**settings: Any) -> torch.optim.Optimizer:
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": base} for base in BASES]
    return torch.optim.SGD(groups, lr=1.0, momentum=0.9, **settings)


def torchs(scheduler: Any, num_steps: int, *, every: int = 1) -> list[list[float]]:
    """The rates of each step; the scheduler moves on after every so many."""
    rates = []
    for step in range(num_steps):
        rates.append([group["lr"] for group in scheduler.optimizer.param_groups])
        scheduler.optimizer.step()
        if (step + 1) % every == 0 and step + 1 < num_steps:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # SequentialLR steps with an argument that torch itself deprecates
                scheduler.step()
    return rates


def timms(scheduler: Any, num_steps: int) -> list[list[float]]:
    rates = []
    for step in range(num_steps):
        scheduler.step_update(step)
        rates.append([group["lr"] for group in scheduler.optimizer.param_groups])
    return rates


def equal(first: list[list[float]], second: list[list[float]]) -> None:
    assert len(first) == len(second)
    assert torch.tensor(first).numpy() == pytest.approx(torch.tensor(second).numpy(), rel=1e-6, abs=1e-12)


def test_constant_is_constant() -> None:
    assert ours(rg.Stage("a", epochs=2)) == [BASES] * 10


@pytest.mark.parametrize("every", [1, 2, 3])
def test_steps_at_every_so_many_epochs(every: int) -> None:
    stage = rg.Stage("a", epochs=7, schedule=rg.Schedule("step", every=every, gamma=0.3))
    equal(ours(stage), torchs(lr_scheduler.StepLR(optimizer(), every, gamma=0.3), 35, every=5))
    equal(ours(stage), timms(StepLRScheduler(optimizer(), every * 5, 0.3, t_in_epochs=False), 35))


@pytest.mark.parametrize("milestones", [(1,), (2, 3), (1, 4, 6)])
def test_steps_at_milestones(milestones: tuple[int, ...]) -> None:
    stage = rg.Stage("a", epochs=7, schedule=rg.Schedule("step", milestones=milestones))
    equal(ours(stage), torchs(lr_scheduler.MultiStepLR(optimizer(), milestones), 35, every=5))
    # timm's MultiStepLRScheduler counts its milestones from 1: the same rates, one unit earlier.
    theirs = MultiStepLRScheduler(optimizer(), [m * 5 + 1 for m in milestones], 0.1, t_in_epochs=False)
    equal(ours(stage), timms(theirs, 35))


def test_milestones_of_a_stage_in_steps_are_steps() -> None:
    stage = rg.Stage("a", steps=23, schedule=rg.Schedule("step", milestones=(7, 11), gamma=0.5))
    equal(ours(stage), torchs(lr_scheduler.MultiStepLR(optimizer(), [7, 11], gamma=0.5), 23))


@pytest.mark.parametrize("min_lr", [0.0, 1e-4])
def test_cosine(min_lr: float) -> None:
    stage = rg.Stage("a", lr=0.1, epochs=4, schedule=rg.Schedule("cosine", min_lr=min_lr))
    equal(ours(stage), torchs(lr_scheduler.CosineAnnealingLR(optimizer(), 20, eta_min=min_lr), 20))
    equal(ours(stage), timms(CosineLRScheduler(optimizer(), 20, lr_min=min_lr, t_in_epochs=False), 20))


@pytest.mark.parametrize("settings", [{"warmup_epochs": 1.2}, {"warmup_steps": 6}])
def test_warm_up_before_a_cosine(settings: dict[str, Any]) -> None:
    stage = rg.Stage("a", epochs=4, schedule="cosine", **settings)
    inside = optimizer()
    parts = [
        lr_scheduler.LinearLR(inside, start_factor=1 / 7, total_iters=6),
        lr_scheduler.CosineAnnealingLR(inside, 14),
    ]
    equal(ours(stage), torchs(lr_scheduler.SequentialLR(inside, parts, milestones=[6]), 20))
    (first,) = {rates[0] for rates in ours(stage)[:1]}
    group = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=BASES[0])
    theirs = CosineLRScheduler(group, 14, warmup_t=6, warmup_lr_init=first, warmup_prefix=True, t_in_epochs=False)
    equal([rates[:1] for rates in ours(stage)], timms(theirs, 20))


def test_warm_up_before_a_constant_rate() -> None:
    stage = rg.Stage("a", epochs=2, warmup_steps=4)
    equal(ours(stage), torchs(lr_scheduler.LinearLR(optimizer(), start_factor=1 / 5, total_iters=4), 10))


@settings(max_examples=60, deadline=None)
@given(
    steps=st.integers(2, 60),
    pct_start=st.sampled_from([0.0, 0.1, 0.25, 0.3, 0.5, 0.9, 1.0]),
    div_factor=st.sampled_from([1.0, 10.0, 25.0]),
    final_div_factor=st.sampled_from([1.0, 100.0, 1e4]),
)
def test_one_cycle(steps: int, pct_start: float, div_factor: float, final_div_factor: float) -> None:
    schedule = rg.Schedule("one-cycle", pct_start=pct_start, div_factor=div_factor, final_div_factor=final_div_factor)
    stage = rg.Stage("a", steps=steps, schedule=schedule)
    inside = optimizer()
    try:
        theirs = lr_scheduler.OneCycleLR(
            inside,
            max_lr=BASES,
            total_steps=steps,
            pct_start=pct_start,
            div_factor=div_factor,
            final_div_factor=final_div_factor,
        )
        rates, momenta = [], []
        for step in range(steps):
            rates.append([group["lr"] for group in inside.param_groups])
            momenta.append(inside.param_groups[0]["momentum"])
            inside.step()
            if step + 1 < steps:
                theirs.step()
    except ZeroDivisionError:  # a phase of no steps, which torch does not foresee
        return
    equal(ours(stage), rates)
    length = length_of(stage, NUM_IMAGES, BATCH)
    assert [momentum_at(stage, step, length) for step in range(steps)] == pytest.approx(momenta, rel=1e-6)


def test_one_cycle_of_a_single_step_has_a_rate() -> None:
    stage = rg.Stage("a", steps=1, schedule="one-cycle")
    assert ours(stage)[0][0] > 0


def test_momentum_stays_where_no_cycle_moves_it() -> None:
    for schedule in ("cosine", rg.Schedule("one-cycle", cycle_momentum=False)):
        stage = rg.Stage("a", epochs=1, schedule=schedule)
        assert momentum_at(stage, 0, length_of(stage, NUM_IMAGES, BATCH)) is None


def test_length_in_steps_and_in_epochs() -> None:
    in_steps = length_of(rg.Stage("a", steps=12), NUM_IMAGES, BATCH)
    assert (in_steps.steps, in_steps.epochs, in_steps.steps_per_epoch) == (12, 3, 5)
    accumulated = length_of(rg.Stage("a", epochs=2, accumulate=3), NUM_IMAGES, BATCH)
    assert (accumulated.steps, accumulated.epochs, accumulated.steps_per_epoch) == (4, 2, 2)
    assert length_of(rg.Stage("a"), NUM_IMAGES, BATCH).epochs == 10
