"""`--model auto`: the network that ranks first among those with weights here; the recipe has its name and why."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
from tests.conftest import Cli, photos
from tests.data.drawn import plant_pairs
from tests.training.test_budget import tried

import regraft as rg
from regraft.assembly.choosing import is_open, with_network
from regraft.models.zoo.families import installed_weights
from regraft.ranking.ranking import RankedModel, Ranking
from regraft.recipe.recipe import default_recipe, validate_recipe

LITES = ["tf_efficientnet_lite0", "tf_efficientnet_lite1"]
AUTO = {"model": {"name": "auto", "image_size": 32}, "numerics": {"threads": 1}}


@pytest.fixture
def colours(tmp_path: Path) -> Path:
    return photos(tmp_path / "photos", {"blue": 14, "green": 14})


@pytest.fixture
def two(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two networks with weights on this machine, of which the second ranks first."""

    def ranked(data: rg.DataSet, candidates: object, build: object, search: object) -> Ranking:
        best = RankedModel(LITES[1], "pretrained", accuracy=0.9, interval=(0.8, 0.95), log_loss=0.2)
        other = replace(best, name=LITES[0], accuracy=0.85, behind=(0.05, -0.02, 0.12))
        failed = RankedModel("resnet18", "pretrained", reason="It is too large.")
        return Ranking((best, other, failed), data.name, 20, 20, 5, 1.0)

    monkeypatch.setattr("regraft.assembly.choosing.models_with_weights", lambda: [*LITES, "resnet18"])
    monkeypatch.setattr("regraft.assembly.choosing.rank_candidates", ranked)
    return LITES


def test_the_first_in_rank_is_taken_and_what_became_of_the_others_is_said(colours: Path, two: list[str]) -> None:
    recipe = validate_recipe({**default_recipe(), **AUTO})
    chosen = with_network(recipe, rg.open_data(colours))
    assert chosen.recipe.model.name == "tf_efficientnet_lite1"
    assert chosen.recipe.model.image_size == 32
    assert chosen.recipe.notes == recipe.notes
    assert chosen.reasons == (
        "model auto: tf_efficientnet_lite1, first of 3 by a linear probe on 20 images (90.0%)",
        "model auto: tf_efficientnet_lite0 reaches 85.0%, within noise",
        "model auto: resnet18 could not be compared: It is too large.",
    )
    named = validate_recipe(default_recipe())
    assert with_network(named, rg.open_data(colours)) == (named, (), None)


def test_a_short_budget_takes_the_first_without_comparing(colours: Path, two: list[str]) -> None:
    recipe = validate_recipe({**default_recipe(has_budget=True), **AUTO, "budget": "100s"})
    chosen = with_network(recipe, rg.open_data(colours))
    assert chosen.recipe.model.name == "tf_efficientnet_lite0"
    assert chosen.reasons == ("model auto: tf_efficientnet_lite0, 8.0 s are too short to compare 3 networks",)


def test_a_run_has_the_name_and_the_reason(cli: Cli, colours: Path, tmp_path: Path, monkeypatch: object) -> None:
    assert isinstance(monkeypatch, pytest.MonkeyPatch)
    monkeypatch.setattr("regraft.assembly.choosing.models_with_weights", lambda: LITES[:1])
    out = tmp_path / "run"
    options = ("--image-size", 32, "--stages", "head", "--threads", 1, "--device", "cpu")
    result = cli("train", colours, "--model", "auto", *options, "--out", out)
    assert result.code == 0, result.err
    reason = "model auto: tf_efficientnet_lite0, the only network with weights on this machine"
    assert reason in (out / "log.txt").read_text()
    text = (out / "recipe.yaml").read_text()
    assert f"# {reason}" in text
    assert "name: tf_efficientnet_lite0" in text
    assert rg.open_run(out).settings()["model"]["name"] == "tf_efficientnet_lite0"
    assert cli("resume", out).code == 0
    dry = cli("train", colours, "--model", "auto", *options, "--dry-run")
    assert reason in dry.out


@pytest.mark.skipif(
    any(installed_weights(name) is None for name in LITES), reason="the extra `backbones` is not installed"
)
def test_networks_are_really_compared(colours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regraft.assembly.choosing.models_with_weights", lambda: LITES)
    recipe = validate_recipe({**default_recipe(), **AUTO})
    chosen = with_network(recipe, rg.open_data(colours))
    assert chosen.recipe.model.name in LITES
    assert "first of 2 by a linear probe on 24 images" in chosen.reasons[0]


@pytest.mark.parametrize(
    ("steps", "network", "reason"),
    [
        ({0: 0.02, 2: 0.05}, "tf_efficientnet_lite2", r"as the budget gives it \d\d"),
        ({0: 0.02, 2: 1.5}, "tf_efficientnet_lite0", "as the budget gives tf_efficientnet_lite2 0.0 epochs"),
        ({0: 9.0, 2: 20.0}, "tf_efficientnet_lite2", "enough for its head"),
    ],
)
def test_a_budget_takes_the_larger_network_where_it_gets_enough_epochs(
    colours: Path, monkeypatch: pytest.MonkeyPatch, steps: dict[int, float], network: str, reason: str
) -> None:
    """By what each of their training images takes: the larger one, the smaller one, or a head alone."""
    monkeypatch.setattr("regraft.assembly.choosing.installed_weights", lambda name: Path("weights"))
    monkeypatch.setattr(
        "regraft.assembly.choosing.tried_in_budget",
        lambda recipe, *_rest: tried(0.0, steps[int(recipe.model.name[-1])], train=20),
    )
    recipe = validate_recipe({"budget": "100s", "model": {"image_size": 32}}, default_recipe(has_budget=True))
    assert is_open(recipe)
    chosen = with_network(recipe, rg.open_data(colours))
    assert chosen.recipe.model.name == network
    assert chosen.tried is not None
    assert re.search(reason, chosen.reasons[0])


def test_a_budget_that_has_no_effect_has_none_on_the_network(colours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regraft.assembly.choosing.installed_weights", lambda name: Path("weights"))
    stages = [{"name": "all", "train": "all", "epochs": 3, "optimizer": "sgd", "lr": 0.1}]
    recipe = validate_recipe({"budget": "100s", "model": {"image_size": 32}, "stages": stages})
    chosen = with_network(recipe, rg.open_data(colours))
    assert (chosen.recipe.model.name, chosen.reasons, chosen.tried) == ("tf_efficientnet_lite0", (), None)


def test_a_budget_leaves_a_named_network_alone_and_needs_installed_weights(
    colours: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, base = rg.open_data(colours), default_recipe(has_budget=True)
    named = validate_recipe({"budget": "100s", "model": {"name": "resnet18"}}, base)
    assert with_network(named, data) == (named, (), None)
    own = validate_recipe({"budget": "100s", "model": {"weights": "none"}}, base)
    assert with_network(own, data).recipe.model.name == "tf_efficientnet_lite0"
    monkeypatch.setattr("regraft.assembly.choosing.installed_weights", lambda name: None)
    without = validate_recipe({"budget": "100s"}, base)
    assert with_network(without, data).recipe.model.name == "tf_efficientnet_lite0"


def test_what_auto_cannot_choose_for(colours: Path, tmp_path: Path) -> None:
    data = rg.open_data(colours)
    other = validate_recipe({**default_recipe(), "model": {"name": "auto", "weights": "none"}})
    with pytest.raises(rg.SettingsError, match=r"model.name is auto, and model.weights belongs to one network"):
        with_network(other, data)
    scenes = rg.open_data(plant_pairs(tmp_path / "scenes", {"train": 6, "val": 2}))
    with pytest.raises(rg.SettingsError, match="have masks"):
        with_network(validate_recipe({**default_recipe(), **AUTO}), scenes)
