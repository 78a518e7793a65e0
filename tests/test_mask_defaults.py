"""`regraft train IMAGES_AND_MASKS` alone: which network, at which size, in which stages."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from PIL import Image

import regraft as rg
from regraft.data.masks.default_size import default_size
from regraft.recipe.recipe import default_recipe, validate_recipe
from tests.conftest import Cli
from tests.segmentation import scenes_in

SMALL = {"encoder": "test_resnet", "depth": 3, "filters": [16, 8]}
WITHOUT_WEIGHTS = ("--set", "model.weights=none", *(f"--set=model.args.{key}={SMALL[key]}" for key in SMALL))


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return scenes_in(tmp_path_factory.mktemp("scenes"), size=(64, 96))


def test_a_run_without_options(scenes: Path, cli: Cli, tmp_path: Path) -> None:
    run = tmp_path / "run"
    options = ("--set", "stages.decoder.epochs=1", "--set", "stages.all.epochs=2", "--threads", "1", "--out", run)
    result = cli("train", scenes, *WITHOUT_WEIGHTS, *options)
    assert result.code == 0, result.err
    assert "mean IoU (test): " in result.out
    settings = yaml.safe_load((run / "recipe.yaml").read_text())
    assert (settings["model"]["name"], settings["model"]["image_size"]) == ("unet", [64, 96])
    assert settings["model"]["args"]["convs"] == 1, "the other arguments stay"
    assert settings["monitor"] == "val_miou"
    assert [(stage["name"], stage["epochs"]) for stage in settings["stages"]] == [("decoder", 1), ("all", 2)]
    assert settings["stages"][1]["backbone_lr"] < 1
    first, second = json.loads((run / "audit.json").read_text())["stages"]
    assert (first["verdict"], second["verdict"]) == ("ok", "ok")
    assert cli("resume", run).code == 0


def test_the_network_is_the_one_whose_weights_come_with_regraft(scenes: Path, cli: Cli) -> None:
    result = cli("train", scenes, "--dry-run", "--set", "data.batch_size=2", "--set", "defaults.epochs=3")
    assert result.code == 0, result.err
    assert "images: 8 to train on, 4 to validate, 3 classes" in result.out
    recipe = validate_recipe({"data": {"source": str(scenes)}}, default_recipe((64, 96)))
    assert recipe.model.args["encoder"] == "tf_efficientnet_lite0"
    assert recipe.model.weights == "pretrained"
    assert [stage.train for stage in recipe.stages] == ["!encoder", "all"]


def test_in_python_it_is_the_same(scenes: Path, tmp_path: Path) -> None:
    said = {
        "model": {"weights": "none", "args": SMALL},
        "data": {"source": str(scenes)},
        "defaults": {"epochs": 1},
        "numerics": {"precision": "fp32", "threads": 1},
        "log": [],
    }
    settings = rg.run_recipe(said, out=tmp_path / "run", show=False).settings()
    assert [(stage["name"], stage["epochs"]) for stage in settings["stages"]] == [("decoder", 1), ("all", 1)]
    assert settings["monitor"] == "val_miou"


def test_what_a_recipe_says_itself_is_kept() -> None:
    usual = default_recipe((64, 96))
    named = validate_recipe({"model": {"name": "segnet", "image_size": 32}, "monitor": "val_loss"}, usual)
    assert (named.model.name, named.model.args, named.model.image_size) == ("segnet", {}, 32)
    assert (named.monitor, [stage.name for stage in named.stages]) == ("val_loss", ["decoder", "all"])
    own = validate_recipe({"stages": [{"name": "only"}]}, usual)
    assert (own.model.name, own.monitor, len(own.stages)) == ("tf_efficientnet_lite0", "val_calibrated_loss", 1)


SIZES = {(64, 96): (64, 96), (40, 100): (32, 96), (20, 20): (32, 32), (360, 480): (352, 480), (900, 300): (736, 256)}


@pytest.mark.parametrize(("size", "expected"), SIZES.items())
def test_the_size_has_the_proportions_of_the_images_and_is_no_larger(
    tmp_path: Path, size: tuple[int, int], expected: tuple[int, int]
) -> None:
    data = rg.open_data(scenes_in(tmp_path, {"train": 3, "val": 1}, size=size))
    assert default_size(data) == expected
    assert expected[0] * expected[1] <= 1.2 * 416**2


def test_pictures_are_measured_upright_and_labels_need_no_size(tmp_path: Path, tiny_photos: Path) -> None:
    root = scenes_in(tmp_path, {"train": 1, "val": 1}, size=(64, 96))
    exif = Image.Exif()
    exif[274] = 6  # turned by a quarter
    path = root / "train" / "images" / "000.png"
    with Image.open(path) as picture:
        picture.save(path, exif=exif)
    assert default_size(rg.open_data(root)) == (96, 64)
    assert default_size(rg.open_data(tiny_photos)) is None
