"""`--budget`: stages that do not say how long they are get as many steps as the time allows."""

from __future__ import annotations

import hashlib
import re
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import regraft as rg
from regraft.compute.numerics import choose_numerics
from regraft.errors import SettingsError
from regraft.recipe.recipe import validate_recipe
from regraft.settings.duration import seconds_of
from regraft.training.preflight.forecast import RunSize, Tried
from regraft.training.preflight.time_budget import MOST_EPOCHS, plan_within
from regraft.training.preflight.trial import Costs, Line
from tests.conftest import Cli
from tests.training.tiny import few_photos_in

NETWORK = ("--model", "test_resnet", "--set", "model.weights=none", "--image-size", "32", "--threads", "1")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return few_photos_in(tmp_path_factory.mktemp("few") / "photos")


def costs(step: float) -> Costs:
    """Of a stage whose images take so long in training, and half of that in validation."""
    return Costs(1.0, 0.0, 0.01, 0.01, 1, Line(0.0, step), Line(0.0, step / 2), 0.001, 0, 0, 32)


def tried(*steps: float, train: int = 1000) -> Tried:
    numerics = choose_numerics("cpu", "fp32", 1)
    each = tuple(costs(step) for step in steps)
    return Tried(each, (32, 32), RunSize(train, 100, 10), numerics, 5.0, 1.0, 0.001, 0)


HEAD = rg.Stage("head", optimizer="lbfgs")
ALL = rg.Stage("all", train="all", optimizer="sgd", lr=0.1)


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("10m", 600), ("1h", 3600), ("1h30m", 5400), (" 1.5 H ", 5400), ("1m 5s", 65)]
)
def test_durations_as_people_write_them(text: str, seconds: float) -> None:
    assert seconds_of(text) == seconds


@pytest.mark.parametrize("text", ["", "10", "m", "10 minutes", "-5m", "5m1h", "0s", "1e9s", "٣m"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError, match="10m"):
        seconds_of(text)
    with pytest.raises(SettingsError, match=r"budget.*10m"):
        validate_recipe({"budget": text})


@given(seconds=st.floats(60, 5000), step=st.floats(0.001, 0.1), train=st.integers(20, 3000))
def test_the_time_is_used_and_not_exceeded(seconds: float, step: float, train: int) -> None:
    known = tried(0.0, step, train=train)
    try:
        found = plan_within([HEAD, ALL], [HEAD, ALL], known, seconds)
    except SettingsError:
        assert known.forecast([HEAD]).seconds > 0.94 * seconds
        return
    assert found.expected.seconds <= 0.94 * seconds
    if len(found.stages) == 1:
        least = ALL.to_dict() | {"steps": max(1, -(-train // 10) // 4), "epochs": None}
        assert known.forecast([HEAD, rg.Stage(**least)]).seconds > 0.94 * seconds
        return
    steps = found.stages[1].steps
    assert steps is not None
    longer = rg.Stage(**{**ALL.to_dict(), "steps": steps + 1 + train // 10})
    most = MOST_EPOCHS * -(-train // 10)
    assert steps == most or known.forecast([HEAD, longer]).seconds > 0.94 * seconds


def test_open_stages_get_as_many_epochs_each_and_others_keep_theirs() -> None:
    fixed = rg.Stage("top", train="all", optimizer="sgd", lr=0.1, epochs=2)
    found = plan_within([HEAD, fixed, ALL, ALL], [HEAD, fixed, ALL, ALL], tried(0.0, 0.01, 0.01, 0.01), 200.0)
    assert (found.stages[1].epochs, found.stages[1].steps) == (2, None)
    assert found.stages[2].steps == found.stages[3].steps
    assert found.stages[2].steps > 100


def test_a_short_budget_leaves_the_head_alone_and_a_shorter_one_is_refused() -> None:
    known = tried(0.0, 0.05)
    found = plan_within([HEAD, ALL], [HEAD, ALL], known, 40.0)
    assert [stage.name for stage in found.stages] == ["head"]
    assert "stage all: left out" in found.reasons[0]
    with pytest.raises(SettingsError, match="too short"):
        plan_within([HEAD, ALL], [HEAD, ALL], known, 10.0)


def test_a_stage_of_less_than_an_epoch_warms_up_for_a_quarter_of_it() -> None:
    """Its own warm-up, which is half an epoch, would take all of it; a longer stage keeps that."""
    warm = rg.Stage("all", train="all", optimizer="sgd", lr=0.1, warmup_epochs=0.5)
    known = tried(0.0, 0.05)
    short = plan_within([HEAD, warm], [HEAD, warm], known, 130.0).stages[1]
    assert 25 <= short.steps < 100
    assert (short.warmup_epochs, short.warmup_steps) == (0.0, short.steps // 4)
    long = plan_within([HEAD, warm], [HEAD, warm], known, 300.0).stages[1]
    assert long.steps > 100
    assert (long.warmup_epochs, long.warmup_steps) == (0.5, None)


@pytest.mark.slow
def test_a_run_within_a_budget_and_the_same_run_from_its_recipe(cli: Cli, photos: Path, tmp_path: Path) -> None:
    fast = ("--set", "all.lr=1e-3")
    first, second = tmp_path / "first", tmp_path / "second"
    done = cli("train", photos, *NETWORK, *fast, "--budget", "10m", "--out", first)
    assert done.code == 0, done.err
    text = (first / "recipe.yaml").read_text()
    reasons = re.findall(r"^# (budget 10m: .*)$", text, re.MULTILINE)
    assert len(reasons) == 2
    assert all(reason in done.err for reason in reasons)
    assert "budget 10m: stage all: 40 steps, 40.0 epochs, the most that a budget gives" in reasons
    recipe = yaml.safe_load(text)
    assert [(stage["name"], stage["steps"]) for stage in recipe["stages"]] == [("head", None), ("all", 40)]
    assert recipe["stages"][1]["lr"] == 1e-3
    again = cli("train", "--recipe", first / "recipe.yaml", "--out", second)
    assert again.code == 0, again.err
    assert digest(first) == digest(second)
    assert cli("resume", first).code == 0


def digest(run: Path) -> str:
    return hashlib.sha256((run / "model" / "model.safetensors").read_bytes()).hexdigest()


def test_a_dry_run_shows_what_a_budget_comes_to(cli: Cli, photos: Path) -> None:
    done = cli("train", photos, *NETWORK, "--budget", "10m", "--dry-run")
    assert done.code == 0, done.err
    assert "budget 10m: stage all: 40 steps" in done.out


def test_what_a_beginner_types(cli: Cli, photos: Path, tmp_path: Path) -> None:
    wrong = cli("train", photos, *NETWORK, "--budget", "10", "--out", tmp_path / "a")
    assert wrong.code == 2
    assert "budget" in wrong.err
    assert "10m" in wrong.err
    short = cli("train", photos, *NETWORK, "--budget", "0.05s", "--out", tmp_path / "b")
    assert short.code == 2
    assert "too short" in short.err
    assert not (tmp_path / "b").exists()
    known = cli("train", photos, *NETWORK, "--stages", "head", "--budget", "10m", "--out", tmp_path / "c")
    assert known.code == 0
    assert "budget: no effect" in known.err


@pytest.mark.slow
def test_folds_share_a_budget(photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    stage: dict[str, Any] = {"name": "all", "train": "all", "optimizer": "sgd", "lr": 0.1}
    recipe = {
        "model": {"name": "test_resnet", "weights": "none", "image_size": 32},
        "data": {"source": str(photos)},
        "numerics": {"threads": 1},
        "stages": [stage],
        "budget": "20m",
    }
    began = time.monotonic()
    caplog.set_level("INFO", logger="regraft")
    done = rg.cross_validate(recipe, folds=2, out=tmp_path / "folds", show=False)
    assert time.monotonic() - began < 1200
    assert [run.settings()["stages"][0]["steps"] for run in done.runs] == [40, 40]
    assert "600 s for each of 2 folds" in caplog.text


def test_a_share_of_a_tiny_budget_is_too_short_and_leaves_nothing(cli: Cli, photos: Path, tmp_path: Path) -> None:
    done = cli("train", photos, *NETWORK, "--budget", "0.002s", "--folds", "3", "--out", tmp_path / "folds")
    assert done.code == 2, done.err
    assert "too short" in done.err
    assert not (tmp_path / "folds").exists()


def test_a_budget_taken_back_is_none(cli: Cli, photos: Path) -> None:
    with_it = cli("train", photos, *NETWORK, "--budget", "10m", "--set", "budget=null", "--dry-run")
    without = cli("train", photos, *NETWORK, "--dry-run")
    assert (with_it.code, without.code) == (0, 0)
    names = [re.findall(r"^  (\w+): trains", done.out, re.MULTILINE) for done in (with_it, without)]
    assert names[0] == names[1]


def test_a_head_that_cannot_be_solved_is_as_long_as_the_budget_allows(cli: Cli, photos: Path) -> None:
    done = cli("train", photos, *NETWORK, "--set", "head.hidden=[8]", "--budget", "10m", "--dry-run")
    assert done.code == 0, done.err
    assert "budget 10m: stage head: 40 steps" in done.out


def test_resuming_with_a_budget_says_that_it_has_no_effect(
    cli: Cli, photos: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    fast = ("--stages", "head", "--out", tmp_path / "run")
    assert cli("train", photos, *NETWORK, *fast).code == 0
    assert cli("resume", tmp_path / "run", "--set", "budget=5m").code == 0
    assert "budget has no effect on a run that has begun" in caplog.text
