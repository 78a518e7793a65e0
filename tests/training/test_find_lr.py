"""The range test finds a rate that learns, says why, and leaves no trace of itself."""

from __future__ import annotations

import hashlib
import json
import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import regraft as rg
from regraft.compute.numerics import choose_numerics
from regraft.errors import SettingsError
from regraft.training.preflight.find_lr import RangeTest
from tests.conftest import Cli
from tests.training.conftest import small_model

CPU = choose_numerics("cpu", "fp32", 1)


def digest(model: nn.Module) -> str:
    state = b"".join(tensor.numpy().tobytes() for tensor in model.state_dict().values())
    modes = repr([(name, module.training) for name, module in model.named_modules()])
    gradients = repr([(name, p.requires_grad, p.grad is None) for name, p in model.named_parameters()])
    return hashlib.sha256(state + modes.encode() + gradients.encode()).hexdigest()


def found(photos: Path, **options: object) -> tuple[nn.Module, RangeTest]:
    data = rg.open_data(photos)
    model = small_model(data.class_names, head=rg.Head(dropout=0.2))
    stage = rg.Stage("all", train="all", optimizer="adamw", batch_size=8, augment=rg.Augment(flip="horizontal"))
    return model, rg.find_lr(model, stage, data, steps=30, seed=2, numerics=CPU, **options)  # type: ignore[arg-type]


def test_it_leaves_no_trace(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = rg.open_data(photos)
    model = small_model(data.class_names)
    stage = rg.Stage("head", train="head", optimizer="sgd", batch_size=8)
    torch.manual_seed(11)
    random.seed(12)
    np.random.seed(13)
    before = (digest(model), torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist())
    rg.find_lr(model, stage, data, steps=12, numerics=CPU)
    after = (digest(model), torch.get_rng_state().tolist(), random.getstate(), np.random.get_state()[1].tolist())
    assert before == after
    assert not list(tmp_path.iterdir())


def test_rates_rise_by_one_factor_until_the_loss_blows_up(photos: Path) -> None:
    _, test = found(photos, start=1e-6, end=1e3)
    factors = np.array(test.rates[1:]) / np.array(test.rates[:-1])
    np.testing.assert_allclose(factors, (1e3 / 1e-6) ** (1 / 29), rtol=1e-9)
    assert len(test.rates) == len(test.losses) == len(test.smoothed)
    assert len(test.rates) < 30, "a rate of 1000 has to blow up"
    assert math.isfinite(sum(test.losses))
    assert 1e-6 < test.suggestion < 1e2
    assert test.suggestion == min(test.steepest or math.inf, test.lowest)


def test_same_seed_same_curve(photos: Path) -> None:
    assert found(photos)[1] == found(photos)[1]


def test_the_first_loss_is_that_of_the_untrained_model(photos: Path) -> None:
    _, test = found(photos)
    assert test.losses[0] == pytest.approx(math.log(2), abs=0.4)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"start": 1.0, "end": 0.1}, "expected: a start above 0"),
        ({"steps": 3}, "at least 10 steps"),
    ],
)
def test_bad_requests_say_what_was_expected(settings: dict[str, float], says: str, photos: Path) -> None:
    data = rg.open_data(photos)
    stage = rg.Stage("head", optimizer="sgd")
    with pytest.raises(SettingsError, match=says):
        rg.find_lr(small_model(data.class_names), stage, data, **settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [{"image_size": 24}, {"train_image_size": 24}, {"train_image_size": "auto"}])
def test_a_stage_with_its_own_image_size(size: dict[str, Any], photos: Path) -> None:
    data = rg.open_data(photos)
    stage = rg.Stage("all", train="all", optimizer="sgd", batch_size=8, **size)
    test = rg.find_lr(small_model(data.class_names), stage, data, steps=12, numerics=CPU)
    whole = rg.find_lr(
        small_model(data.class_names),
        replace(stage, image_size=None, train_image_size=None),
        data,
        steps=12,
        numerics=CPU,
    )
    assert (test.losses != whole.losses) == (size != {"train_image_size": "auto"})


def test_a_solved_stage_has_no_rate(photos: Path) -> None:
    data = rg.open_data(photos)
    with pytest.raises(SettingsError, match="needs no learning rate"):
        rg.find_lr(small_model(data.class_names), rg.Stage("head", optimizer="lbfgs"), data)


def test_the_command_line(cli: Cli, photos: Path, tmp_path: Path) -> None:
    network = ["--model", "test_efficientnet", "--image-size", "32", "--set", "model.weights=none", "--steps", "12"]
    shown = cli("find-lr", str(photos), *network, "--out", str(tmp_path / "curve.html"))
    assert shown.code == 0, shown.err
    assert "suggested lr: " in shown.out
    assert "stage all" in shown.out, "the first stage is solved and has no rate"
    assert "<svg" in (tmp_path / "curve.html").read_text()
    values = json.loads(cli("find-lr", str(photos), *network, "--json").out)
    assert f"suggested lr: {values['suggestion']:.1e}" in shown.out
    wrong = cli("find-lr", str(photos), *network, "--stage", "al")
    assert wrong.code == 2
    assert "head, all" in wrong.err
