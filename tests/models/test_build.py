"""Names to networks: random weights are a function of the seed, wrong names and arguments are told in words."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from regraft.errors import SettingsError, WeightsError
from regraft.models.describe.info import info_of
from regraft.models.networks.names import is_buildable, list_models
from regraft.models.zoo.build import build_model
from regraft.models.zoo.families import installed_weights


def test_random_weights_are_a_function_of_the_seed() -> None:
    torch.manual_seed(5)
    drawn = torch.rand(1)
    torch.manual_seed(5)
    one, two, other = (build_model("test_resnet", seed=seed).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.rand(1), drawn), "the caller's generator is left alone"
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert any(not torch.equal(one[name], other[name]) for name in one)


def test_the_model_remembers_how_it_was_built() -> None:
    info = info_of(build_model("test_resnet", num_classes=7, drop_path_rate=0.1))
    assert info.architecture == "test_resnet"
    assert info.args == {"num_classes": 7, "drop_path_rate": 0.1}


def test_alexnet_is_built_by_name() -> None:
    model = build_model("alexnet", widths=(8, 16, 24, 24, 16), hidden=32, num_classes=3)
    assert info_of(model).architecture == "alexnet"
    assert model(torch.zeros(1, 3, 227, 227)).shape == (1, 3)
    assert is_buildable("alexnet")
    assert "alexnet" in list_models("alex*")


@pytest.mark.parametrize(
    ("name", "near"),
    [("resnet5O", "resnet50"), ("ResNet-50", "resnet50"), ("efficientnet_lite0", "efficientnet_lite0")],
)
def test_an_unknown_name_gets_the_nearest_ones(name: str, near: str) -> None:
    if is_buildable(name):
        return
    with pytest.raises(SettingsError, match="There is no model") as caught:
        build_model(name)
    assert near in str(caught.value)


@pytest.mark.parametrize("name", ["", "zzzzzz", "hf-hub:somebody/model", "local-dir:/tmp", "../resnet50"])
def test_names_that_are_none_are_refused(name: str) -> None:
    with pytest.raises(SettingsError, match="There is no model"):
        build_model(name)


def test_a_tag_that_the_architecture_lacks_is_refused_with_those_it_has() -> None:
    with pytest.raises(SettingsError, match="a1_in1k"):
        build_model("resnet50.no_such_tag")


@pytest.mark.parametrize("arguments", [{"no_such": 1}, {"output_stride": 7}, {"global_pool": 12}])
def test_arguments_that_the_architecture_refuses(arguments: dict[str, object]) -> None:
    with pytest.raises(SettingsError, match="does not take these arguments"):
        build_model("test_resnet", **arguments)  # type: ignore[arg-type]


def test_weights_are_read_from_a_file_and_noted(tmp_path: Path) -> None:
    source = build_model("test_resnet", seed=1)
    save_file(source.state_dict(), tmp_path / "w.safetensors")
    model = build_model("test_resnet", seed=2, weights=tmp_path / "w.safetensors")
    expected = source.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in model.state_dict().items())
    assert info_of(model).origin.weights == str(tmp_path / "w.safetensors")


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    save_file(build_model("test_resnet").state_dict(), tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match="does not fill test_efficientnet"):
        build_model("test_efficientnet", weights=tmp_path / "w.safetensors")
    with pytest.raises(WeightsError, match="There is no weights file"):
        build_model("test_efficientnet", weights=tmp_path / "missing.safetensors")


def test_the_embedded_weights_are_found_with_and_without_their_tag() -> None:
    path = installed_weights("tf_efficientnet_lite0")
    assert path is not None
    assert path.is_file()
    assert installed_weights("tf_efficientnet_lite0.in1k") == path
    assert installed_weights("resnet50") is None
