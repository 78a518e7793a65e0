"""Every recipe under recipes/ runs, shrunk, on tiny data; the page about recipes knows every key."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import yaml
from PIL import Image

import regraft as rg
from regraft.recipe.recipe import read_recipe, schema, validate_recipe
from regraft.run.records import read_metrics
from tests.conftest import Cli
from tests.segmentation import scenes_in

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
CLASSIC = {"vgg16-two-stages", "alexnet-txt-list", "resnet50-plateau-folds", "gradual-unfreezing", "lp-ft"} | {
    "camvid-unet-lite0",
    "camvid-unet-vgg16",
    "camvid-segnet-vgg16",
}
# What makes each small enough for a test; the layer names stay.
SMALL = {
    "vgg16-two-stages": ["model.image_size=32", "model.args={mlp_ratio: 0.01}", "head.hidden=[8]"],
    "alexnet-txt-list": ["model.args={widths: [8, 8, 8, 8, 8], hidden: 16}"],
    "resnet50-plateau-folds": ["model.name=test_resnet", "model.image_size=32"],
    "gradual-unfreezing": ["model.name=test_resnet", "model.image_size=32"],
    "lp-ft": ["model.name=test_resnet", "model.image_size=32"],
    "camvid-unet-lite0": [
        "model.args={encoder: test_resnet, depth: 3, filters: [8, 8]}",
        "stages.0.image_size=[16, 20]",
    ],
    "camvid-unet-vgg16": ["model.args={encoder: keras_vgg16, depth: 2, filters: [4]}"],
    "camvid-segnet-vgg16": ["model.args={encoder: keras_vgg16, depth: 2}"],
}


def lists(root: Path, num: int = 4) -> Path:
    """A folder with pictures, train.txt and val.txt."""
    for split in ("train", "val"):
        lines = []
        for number in range(num):
            noise = np.random.default_rng([number, len(split)]).integers(0, 255, (24, 24, 3))
            path = root / "pictures" / f"{split}{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(noise.astype(np.uint8)).save(path)
            lines.append(f"pictures/{path.name} {number % 2}")
        (root / f"{split}.txt").write_text("\n".join(lines) + "\n")
    return root


def streets(root: Path) -> Path:
    """A few pictures with masks, and CamVid's names for what is in them."""
    scenes_in(root, {"train": 4, "val": 2, "test": 1}, size=(32, 40))
    names = "sky building pole road pavement tree sign fence car pedestrian cyclist void"
    (root / "classes.txt").write_text("\n".join(f"{place} {name}" for place, name in enumerate(names.split())))
    for place, path in enumerate(sorted(root.glob("*/masks/*.png"))):
        with Image.open(path) as picture:
            mask = np.array(picture)
        mask = np.arange(mask.size).reshape(mask.shape) // (mask.size // 12 + 1) if place % 2 == 0 else mask % 3
        Image.fromarray(mask.astype(np.uint8)).save(path)
    return root


def shrunk(path: Path) -> list[str]:
    """The options that make a recipe small: no weights, one epoch a stage, small batches."""
    stages = read_recipe(path)["stages"]
    sets = ["model.weights=none", "model.skip=[]", "data.batch_size=4", *SMALL[path.stem]]
    sets += ["model.image_size=[32, 40]"] if path.stem.startswith("camvid") else []
    sets += [f"stages.{n}.epochs=1" for n, stage in enumerate(stages) if stage.get("optimizer") != "lbfgs"]
    return [word for setting in sets for word in ("--set", setting)]


def test_the_classic_recipes_are_there() -> None:
    assert {path.stem for path in RECIPES} == CLASSIC


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_what_editors_and_regraft_accept(path: Path) -> None:
    values = read_recipe(path)
    assert not list(jsonschema.Draft202012Validator(schema()).iter_errors(values))
    recipe = validate_recipe(values)
    assert not recipe.notes
    assert [stage.name for stage in recipe.stages]


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_runs(path: Path, cli: Cli, tiny_photos: Path, tmp_path: Path) -> None:
    source = lists(tmp_path / "lists") if path.stem == "alexnet-txt-list" else tiny_photos
    source = streets(tmp_path / "streets") if path.stem.startswith("camvid") else source
    folds = ["--folds", "2"] if path.stem == "resnet50-plateau-folds" else []
    out = tmp_path / "run"
    result = cli("train", source, "--recipe", path, "--out", out, *shrunk(path), *folds, "--precision", "fp32")
    assert result.code == 0, result.err
    runs = [run.parent for run in out.rglob("status.json")]
    assert len(runs) == (2 if folds else 1)
    names = [stage["name"] for stage in read_recipe(path)["stages"]]
    for run in runs:
        assert json.loads((run / "status.json").read_text())["state"] == "finished"
        audits = json.loads((run / "audit.json").read_text())["stages"]
        assert [(audit["stage"], audit["verdict"]) for audit in audits] == [(name, "ok") for name in names]
        assert list(dict.fromkeys(row["stage"] for row in read_metrics(run / "metrics.jsonl"))) == names


def test_the_vgg16_recipe_says_what_the_original_says() -> None:
    recipe = validate_recipe(read_recipe(ROOT / "recipes" / "vgg16-two-stages.yaml"))
    head, block5 = recipe.stages
    assert (head.epochs, block5.epochs, block5.lr, block5.train) == (30, 100, 1e-5, ["block5", "head"])
    for stage in (head, block5):
        assert stage.augment == rg.Augment(rotation=40, shift=0.2, shear=11.5, zoom=0.2, flip="horizontal")
        assert stage.augment.fill == "nearest"


def test_alexnet_trains_the_two_layers_with_the_caffe_rate() -> None:
    (stage,) = validate_recipe(read_recipe(ROOT / "recipes" / "alexnet-txt-list.yaml")).stages
    assert (stage.train, stage.optimizer, stage.lr) == (["fc7", "fc8"], "sgd", 0.001)


def test_the_tables_of_the_page_are_those_that_the_script_prints() -> None:
    page = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    command = [sys.executable, ROOT / "scripts" / "recipe_keys.py"]
    tables = subprocess.run(command, capture_output=True, text=True, check=True, encoding="utf-8").stdout
    assert page[page.index("### `recipe`") :].strip() == tables.strip()


def test_the_recipes_on_the_page_are_those_of_the_folder() -> None:
    page = (ROOT / "docs" / "recipes.md").read_text(encoding="utf-8")
    assert set(re.findall(r"`recipes/([a-z0-9-]+)\.yaml`", page)) == CLASSIC
    assert yaml.safe_load(re.findall(r"```yaml\n(.*?)```", page, flags=re.DOTALL)[0])


def test_recipes_are_what_python_takes_too(tiny_photos: Path) -> None:
    stages = validate_recipe(read_recipe(ROOT / "recipes" / "gradual-unfreezing.yaml")).stages
    model = rg.adapt(rg.build_model("test_resnet"), classes=("blue", "green", "red"), image_size=32)
    plan = rg.make_plan(model, stages)
    assert [len(names) for names in plan.trainable] == sorted(len(names) for names in plan.trainable)
