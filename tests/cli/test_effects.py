"""Options, settings and folders that do nothing are said; those that do something are not."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.conftest import Cli, photos

import regraft as rg
from regraft.recipe.recipe import default_recipe, validate_recipe


def masked(root: Path) -> Path:
    for number in range(4):
        for folder in ("images", "masks"):
            (root / folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((20, 20), number % 2, np.uint8)).save(root / folder / f"{number}.png")
    return root


def test_inspect_says_what_it_does_not_read(cli: Cli, tiny_run: Path, tmp_path: Path) -> None:
    root = photos(tmp_path / "photos", {"cat": 10, "dog": 10})
    for target, what in ((root, "a folder of images"), (tiny_run, "a run"), (tiny_run / "model", "a model folder")):
        result = cli("inspect", target, "--from", "ema", "--image-size", "64")
        assert result.code == 0, result.err
        for option in ("--from", "--image-size"):
            assert f"warning: {option} has no effect: the target is {what}" in result.err
    assert "has no effect" not in cli("inspect", root).err


def test_a_dry_run_says_what_it_leaves_out(cli: Cli, tiny_photos: Path, tmp_path: Path) -> None:
    options = ("--model", "test_resnet", "--set", "model.weights=none", "--image-size", "32", "--stages", "head")
    result = cli("train", tiny_photos, "--dry-run", "--json", "--out", tmp_path / "run", *options)
    assert result.code == 0, result.err
    for option in ("--out", "--json"):
        assert f"warning: {option} has no effect: --dry-run shows one run as text and writes nothing" in result.err


def test_a_class_folder_beside_images_and_masks(tmp_path: Path) -> None:
    root = masked(tmp_path / "scenes")
    assert not any("was not used" in text for text in rg.open_data(root).warnings)
    shutil.copytree(root / "images", root / "cats")
    assert any("'cats' next to the images and masks was not used" in text for text in rg.open_data(root).warnings)


@pytest.mark.parametrize("layout", ["{split}/images", "images/{split}", "{split}"])
def test_folders_of_splits_are_used(layout: str, tmp_path: Path) -> None:
    source = masked(tmp_path / "source")
    root = tmp_path / "scenes"
    masks = {"{split}": "{split}annot"}.get(layout, layout.replace("images", "masks"))
    for split in ("train", "val", "test"):
        shutil.copytree(source / "images", root / layout.format(split=split))
        shutil.copytree(source / "masks", root / masks.format(split=split))
    assert not any("was not used" in text for text in rg.open_data(root).warnings)


def test_fractions_of_data_that_is_divided_already(tmp_path: Path) -> None:
    root = tmp_path / "photos"
    for split in ("train", "val"):
        photos(root / split, {"cat": 4, "dog": 4})
    said = "data.fractions has no effect: the source has its own training and validation splits."
    assert said in rg.open_data(root, fractions=(0.5, 0.3, 0.2)).warnings
    assert said not in rg.open_data(root).warnings
    assert said not in rg.open_data(root / "train", fractions=(0.5, 0.3, 0.2)).warnings


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"model": {"weights": "none", "skip": ["fc"]}}, "model.skip has no effect"),
        ({"model": {"weights": "none", "match": {"flip_stem": True}}}, "model.match has no effect"),
        ({"data": {"fold": [0, 5], "fractions": [0.5, 0.3, 0.2]}}, "data.fractions has no effect"),
    ],
)
def test_settings_of_a_recipe(settings: dict[str, object], said: str) -> None:
    assert any(said in note for note in validate_recipe(settings, default_recipe()).notes)
    assert not any("no effect" in note for note in validate_recipe({}, default_recipe()).notes)
