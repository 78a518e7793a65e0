"""The recipe that a run stores carries the whole run: trained from it once more, the same weights come out."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.torch import load_file, save_file
from torch import nn

import regraft as rg
from regraft.models.describe.info import preprocessing_of, settings_of
from tests.conftest import TINY_MODEL, Cli, photos

SMALL_ALEXNET: dict[str, Any] = {"widths": (8, 8, 8, 8, 8), "hidden": 16}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return photos(tmp_path_factory.mktemp("rerun") / "p", {"blue": 8, "red": 8})


def file_of(model: nn.Module, path: Path, **metadata: str) -> Path:
    save_file(model.state_dict(), path, metadata=metadata or None)
    return path


def colour_network(folder: Path) -> nn.Module:
    """A network with weights, whose adapt and train have different seeds."""
    weights = file_of(rg.build_model(TINY_MODEL, seed=3), folder / "w.safetensors")
    model = rg.build_model(TINY_MODEL, weights=weights)
    return rg.adapt(model, classes=["blue", "red"], image_size=32, seed=9)


def bgr_as_rgb(folder: Path) -> nn.Module:
    weights = file_of(rg.build_model("alexnet", **SMALL_ALEXNET, seed=3), folder / "w.safetensors")
    model = rg.build_model("alexnet", weights=weights, **SMALL_ALEXNET)
    assert preprocessing_of(model).channels == "BGR"
    return rg.adapt(model, classes=["blue", "red"], bands=["R", "G", "B"])


def grey_and_back(folder: Path) -> nn.Module:
    weights = file_of(rg.build_model(TINY_MODEL, seed=3), folder / "w.safetensors")
    model = rg.adapt(rg.build_model(TINY_MODEL, weights=weights), in_channels=1)
    return rg.adapt(model, classes=["blue", "red"], image_size=32, in_channels=3)


def skipped_and_flipped(folder: Path) -> nn.Module:
    weights = rg.read_weights(file_of(rg.build_model(TINY_MODEL, seed=3), folder / "w.safetensors"))
    model = rg.build_model(TINY_MODEL, seed=7)
    model = rg.graft(model, rg.match_weights(weights, model, skip=["conv_head"], flip_stem=True))
    return rg.adapt(model, classes=["blue", "red"], image_size=32)


def earlier_run(folder: Path) -> nn.Module:
    """A trained model with a head of its own, trained on for one more class order."""
    data = rg.open_data(photos(folder / "before", {"red": 6, "blue": 6}, seed=5))
    head = rg.Head(pool="avg", hidden=[8])
    model = rg.adapt(rg.build_model(TINY_MODEL), classes=data.class_names, image_size=32, head=head)
    plan = rg.make_plan(model, [rg.Stage("head", epochs=1, optimizer="adamw")])
    run = rg.train(model, plan, data, out=folder / "earlier", batch_size=8, show=False)
    return rg.adapt(rg.load_model(run.path), classes=["blue", "red"])


@pytest.mark.parametrize("make", [colour_network, bgr_as_rgb, grey_and_back, skipped_and_flipped, earlier_run])
def test_a_stored_recipe_gives_the_same_run(
    make: Callable[[Path], nn.Module], pictures: Path, cli: Cli, tmp_path: Path
) -> None:
    model = make(tmp_path)
    plan = rg.make_plan(model, [rg.Stage("top", train=["head", "stage:-1"], epochs=1, optimizer="adam", lr=1e-3)])
    data = rg.open_data(pictures, seed=2)
    run = rg.train(model, plan, data, out=tmp_path / "first", seed=2, batch_size=8, show=False)
    again = cli("train", "--recipe", run.path / "recipe.yaml", "--out", tmp_path / "again")
    assert again.code == 0, again.err
    first, second = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("first", "again"))
    assert first.keys() == second.keys()
    assert all(first[name].equal(second[name]) for name in first)
    stored = [yaml.safe_load((tmp_path / name / "recipe.yaml").read_text()) for name in ("first", "again")]
    assert stored[0] == stored[1]


def test_a_grey_run_from_a_recipe(pictures: Path, cli: Cli, tmp_path: Path) -> None:
    model = {"name": TINY_MODEL, "weights": "none", "image_size": 32, "in_channels": 1}
    stages = [{"name": "head", "epochs": 1, "optimizer": "adam"}]
    recipe = tmp_path / "grey.yaml"
    recipe.write_text(yaml.safe_dump({"model": model, "data": {"source": str(pictures)}, "stages": stages}))
    assert cli("train", "--recipe", recipe, "--out", tmp_path / "run").code == 0
    trained = rg.load_model(tmp_path / "run")
    assert trained.get_parameter("conv_stem.weight").shape[1] == 1
    assert preprocessing_of(trained).channels == "L"
    assert len(list(rg.predict(tmp_path / "run", pictures / "red"))) == 8


def test_weights_of_another_network_s_run_are_told(pictures: Path, tiny_run: Path, tmp_path: Path) -> None:
    recipe = {"model": {"name": "test_resnet", "weights": str(tiny_run)}, "data": {"source": str(pictures)}}
    with pytest.raises(rg.RegraftError, match=f"is '{TINY_MODEL}'"):
        rg.run_recipe(recipe, out=tmp_path / "run", show=False)


def test_the_seed_stands_in_the_recipe_only_where_it_is_another() -> None:
    model = rg.adapt(rg.build_model("test_resnet"), classes=["a", "b"], seed=4)
    assert "seed" not in settings_of(model, seed=4)["model"]
    assert settings_of(model, seed=0)["model"]["seed"] == 4
