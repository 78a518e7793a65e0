"""Backbones compared on images: an order with its noise, rows with reasons, the same figures every time."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Cli, photos

import regraft as rg
from regraft.ranking.candidates import Candidate, candidates_of, default_candidates
from regraft.ranking.rank import rank

TINY = ["test_resnet@none", "test_efficientnet@none"]


@pytest.fixture(scope="module")
def colours(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photos(tmp_path_factory.mktemp("rank") / "photos", {"blue": 14, "green": 14, "red": 14})


@pytest.fixture(scope="module")
def found(colours: Path) -> rg.Ranking:
    return rank(colours, ["tf_efficientnet_lite0", *TINY], image_size=32, numerics=rg.choose_numerics("cpu", threads=1))


def test_the_order_is_that_of_log_loss_and_random_weights_come_last(found: rg.Ranking, colours: Path) -> None:
    held_out = rg.open_data(colours).test
    assert held_out is not None
    assert found.num_images == found.num_available == 42 - len(held_out)
    order = [(row.weights == "none", row.log_loss or 0) for row in found.rows]
    assert order == sorted(order)
    assert [is_random for is_random, _ in order] == [False, True, True]
    assert found.best.behind is None
    for row in found.rows:
        assert row.interval is not None
        assert row.interval[0] < (row.accuracy or 0) <= row.interval[1]
        assert row.seconds_per_1000 is not None
        assert row.seconds_per_1000 > 0
        assert row.image_size == (32, 32)
        assert not row.reason
    assert "linear probes on 36 images, 5 folds" in str(found)
    (lite0,) = [row for row in found.rows if row.name == "tf_efficientnet_lite0"]
    assert lite0.megabytes == pytest.approx(13.7, abs=0.3), "without the ImageNet classifier"


def test_how_far_a_network_is_behind_is_said_with_its_noise(found: rg.Ranking) -> None:
    for row in found.rows[1:]:
        assert row.behind is not None
        mean, low, high = row.behind
        assert mean == pytest.approx((found.best.accuracy or 0) - (row.accuracy or 0))
        assert low <= mean <= high
        assert row.is_within_noise == (low <= 0)
    noisy = replace(found.rows[1], behind=(0.01, -0.02, 0.04))
    assert "within noise of the first" in str(replace(found, rows=(found.best, noisy)))


def test_figures_are_the_same_every_time(found: rg.Ranking, colours: Path) -> None:
    data = rg.open_data(colours)
    again = rank(data, TINY, image_size=32, numerics=rg.choose_numerics("cpu", threads=1))
    before = {row.label: row for row in found.rows}
    for row in again.rows:
        other = before[row.label]
        assert (row.accuracy, row.log_loss) == (other.accuracy, other.log_loss)
        assert (row.logme, row.h_score) == (other.logme, other.h_score)


@pytest.mark.slow
def test_what_cannot_be_ranked_is_a_row_with_its_reason(
    colours: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def nowhere(*args: object, **kwargs: object) -> str:
        raise OSError("offline")

    monkeypatch.setattr("regraft.models.zoo.pretrained._download", nowhere)
    models = ["resnet18", "no_such_net", "test_resnet@none", "unet@none", "test_resnet@missing.pth"]
    ranking = rank(colours, models, image_size=32)
    reasons = {row.label: row.reason for row in ranking.rows}
    assert next(iter(reasons)) == "test_resnet@none"
    assert not reasons["test_resnet@none"]
    assert "the hub cannot be reached" in reasons["resnet18"]
    assert "There is no model 'no_such_net'" in reasons["no_such_net"]
    assert "missing.pth" in reasons["test_resnet@missing.pth"]
    assert reasons["unet@none"]
    assert "not ranked: resnet18: The pretrained weights of 'resnet18'" in str(ranking)
    with pytest.raises(rg.SettingsError, match="No network could be ranked") as caught:
        rank(colours, ["resnet18"])
    assert "resnet18: The pretrained weights" in str(caught.value)


def test_memory_that_is_not_there(colours: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regraft.ranking.comparison.memory_budget", lambda: 10_000_000)
    ranking = rank(colours, ["resnet18@none", "test_resnet@none"], image_size=32)
    assert ranking.best.name == "test_resnet"
    assert ranking.rows[1].reason == "Its 11,689,512 parameters need more memory than there is."


def test_a_short_budget_takes_fewer_images_of_each_class(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = photos(tmp_path / "many", {"blue": 70, "green": 30})
    monkeypatch.setattr("regraft.ranking.comparison._FEWEST_IMAGES", 20)
    with caplog.at_level(logging.INFO, logger="regraft"):
        ranking = rank(root, TINY[:1], image_size=32, budget="0.01s")
    assert ranking.num_images == 20
    assert ranking.num_available == 84
    assert "as few as can be compared are taken: 20 images for each of 1 network" in caplog.text
    assert "on 20 of 84 images" in str(ranking)


def test_names_patterns_groups_and_weights() -> None:
    assert candidates_of(["resnet18", "resnet18@none", "resnet18"]) == [
        Candidate("resnet18"),
        Candidate("resnet18", "none"),
    ]
    assert Candidate("vgg16", "vgg16.h5").label == "vgg16@vgg16.h5"
    assert "tf_efficientnet_lite4" in [found.name for found in candidates_of(["tf_efficientnet_lite*"])]
    assert candidates_of(["fast"])[0] == Candidate("tf_efficientnet_lite0")
    with pytest.raises(rg.SettingsError, match="has pretrained weights"):
        candidates_of(["alexnet*"])
    assert candidates_of(["alexnet*@none"]) == [Candidate("alexnet", "none")]


def test_what_is_ranked_by_default(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr("regraft.ranking.candidates.models_with_weights", lambda: ["tf_efficientnet_lite0"])
    monkeypatch.setattr("regraft.ranking.candidates.is_hub_reachable", lambda: False)
    with caplog.at_level(logging.INFO, logger="regraft"):
        assert default_candidates(None) == [Candidate("tf_efficientnet_lite0")]
    assert "the hub cannot be reached: ranking what has weights on this machine: tf_efficientnet_lite0" in caplog.text
    monkeypatch.setattr("regraft.ranking.candidates.is_hub_reachable", lambda: True)
    assert [found.name for found in default_candidates(60)][:2] == [
        "tf_efficientnet_lite0",
        "mobilenetv4_conv_small.e2400_r224_in1k",
    ]


def test_images_that_backbones_are_not_compared_on(tmp_path: Path) -> None:
    root = photos(tmp_path / "two", {"blue": 4, "green": 4})
    (root / "tags.csv").write_text("path,tags\n" + "".join(f"blue/00{n}.png,a|b\n" for n in range(4)))
    with pytest.raises(rg.SettingsError, match="any number of labels"):
        rank(root / "tags.csv", TINY)
    with pytest.raises(rg.SettingsError, match="has no unit; write 10m"):
        rank(root, TINY, budget="10")


@pytest.mark.slow
def test_the_command(cli: Cli, colours: Path, tmp_path: Path) -> None:
    page = tmp_path / "rank.html"
    options = ("--models", ",".join(TINY), "--image-size", 32, "--threads", 1, "--device", "cpu")
    result = cli("rank", colours, *options, "--json", "--out", page)
    assert result.code == 0, result.err
    facts: dict[str, Any] = json.loads(result.out)
    assert {row["name"] for row in facts["rows"]} == {"test_resnet", "test_efficientnet"}
    assert facts["rows"][0]["behind"] is None
    text = page.read_text()
    assert "Accuracy of linear probes against cost" in text
    assert "test_resnet@none" in text
    assert f"report: {page}" in result.err
    table = cli("rank", colours, *options)
    assert table.out.splitlines()[1].split()[:3] == ["network", "accuracy", "95"]
    assert cli("rank", colours, *options, "--out", colours / "blue" / "000.png").code != 0, "an image is not a page"
    assert cli("rank", tmp_path / "nowhere", *options).code == 3
    assert cli("rank", colours, "--models", "no_such_net").code == 2
    misspelt = cli("rank", colours, "--models", "resnet108,resnet_18@none")
    assert misspelt.code == 2
    assert "try: `--models resnet18,resnet18@none`" in misspelt.err
    nothing = cli("rank", colours, "--models", "")
    assert nothing.code == 2
    assert "No network was named to rank." in nothing.err
    assert "--models resnet18,fast" in nothing.err
