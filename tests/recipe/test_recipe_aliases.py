"""Keras's spellings: rewritten when read, told, and never mixed with regraft's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from tests.conftest import Cli

from regraft.errors import SettingsError
from regraft.recipe.recipe import read_recipe, validate_recipe

KERAS = """\
stages:
- name: head
  trainable: head
  learning_rate: 1e-3
  augmentation: {rotation_range: 40, width_shift_range: 0.2, height_shift_range: 0.2, shear_range: 0.2,
    zoom_range: 0.2, horizontal_flip: true, fill_mode: nearest, rescale: 0.00392156862745098}
  EarlyStopping: {monitor: val_accuracy, mode: auto, patience: 4, restore_best_weights: true, verbose: 1}
  ReduceLROnPlateau: {monitor: val_loss, factor: 0.1, patience: 2, epsilon: 0.001}
"""
OURS = """\
stages:
- name: head
  train: head
  lr: 1e-3
  augment: {rotation: 40, shift: 0.2, shear: 0.2, zoom: 0.2, flip: horizontal, fill: nearest}
  early_stopping: {monitor: val_top1, patience: 4, restore_best: true}
  plateau: {monitor: val_loss, factor: 0.1, patience: 2, min_delta: 0.001}
"""


def stage(**settings: Any) -> dict[str, Any]:
    return {"stages": [{"name": "a", **settings}]}


def augment(**settings: Any) -> Any:
    return validate_recipe(stage(augment=settings)).stages[0].augment


def mistakes(values: dict[str, Any]) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        validate_recipe(values)
    return caught.value.details


def test_a_recipe_in_keras_words_is_the_same_recipe(tmp_path: Path) -> None:
    paths = [tmp_path / "keras.yaml", tmp_path / "ours.yaml"]
    for path, text in zip(paths, (KERAS, OURS), strict=True):
        path.write_text(text)
    keras, ours = (validate_recipe(read_recipe(path)) for path in paths)
    assert keras.model_dump() == ours.model_dump()
    assert ours.notes == ()
    notes = "\n".join(keras.notes)
    for key in ("trainable", "learning_rate", "rotation_range", "fill_mode", "restore_best_weights", "epsilon"):
        assert f".{key}: " in notes
    assert "stages.0.learning_rate: 0.001 is Keras's spelling of lr: 0.001" in keras.notes
    assert "0.2 rad is 11.5 degrees" in notes
    assert "'val_accuracy' is Keras's spelling of 'val_top1'" in notes


@pytest.mark.parametrize(
    ("keras", "ours"),
    [
        ({"horizontal_flip": True}, {"flip": "horizontal"}),
        ({"vertical_flip": True}, {"flip": "vertical"}),
        ({"horizontal_flip": True, "vertical_flip": True}, {"flip": "both"}),
        ({"horizontal_flip": False, "vertical_flip": True}, {"flip": "vertical"}),
        ({"horizontal_flip": False}, {}),
        ({"zoom_range": [0.8, 1.2]}, {"zoom": 0.2}),
        ({"brightness_range": [0.5, 1.5]}, {"brightness": 0.5}),
        ({"width_shift_range": 0.1}, {"shift": [0.0, 0.1]}),
        ({"height_shift_range": 0.3}, {"shift": [0.3, 0.0]}),
        ({"width_shift_range": 0.1, "height_shift_range": 0.3}, {"shift": [0.3, 0.1]}),
        ({"cval": 0}, {}),
        ({"rescale": 0.5}, {}),
    ],
)
def test_augmentation(keras: dict[str, Any], ours: dict[str, Any]) -> None:
    assert augment(**keras) == augment(**ours)


def test_shifts_along_one_side_reach_the_images() -> None:
    recipe = validate_recipe(stage(augment={"width_shift_range": 0.25}))
    built = recipe.stages[0]
    assert built.augment is not None
    assert built.augment.shifts == (0.0, 0.25)
    assert not built.augment.is_identity


@pytest.mark.parametrize(
    ("values", "line"),
    [
        (stage(lr=1, learning_rate=1), "stages.0.learning_rate: learning_rate and lr are both given"),
        (stage(augment={"rotation": 1, "rotation_range": 1}), "rotation_range and rotation are both given"),
        (stage(augment={"shift": 0.1, "width_shift_range": 0.1}), "width_shift_range and shift are both given"),
        (stage(plateau={}, ReduceLROnPlateau={}), "ReduceLROnPlateau and plateau are both given"),
        (stage(augment={"zoom_range": [0.5, 1.0]}), "is not symmetric around 1"),
        (stage(augment={"brightness_range": 0.2}), "expected two numbers"),
        (stage(augment={"width_shift_range": 12}), "pixels are not supported"),
        (stage(augment={"horizontal_flip": "yes please"}), "neither true nor false"),
        (stage(augment={"cval": 7}), "no setting for the value 7"),
        (stage(augment={"fill_mode": "wrap"}), "stages.0.augment.fill: must be 'nearest', 'reflect' or 'constant'"),
        (stage(augment={"rotation_range": -1}), "stages.0.augment.rotation: must be 0 or more"),
        (stage(augment={"channel_shift_range": 3}), "stages.0.augment.channel_shift_range: no such setting"),
        ({"defaults": {"lr": 1, "learning_rate": 1}}, "defaults.learning_rate: learning_rate and lr are both given"),
    ],
)
def test_what_cannot_be_rewritten_is_one_mistake(values: dict[str, Any], line: str) -> None:
    (found,) = mistakes(values)
    assert line in found


def test_defaults_are_rewritten_too() -> None:
    recipe = validate_recipe({"defaults": {"learning_rate": 0.5}, "stages": [{"name": "a"}, {"name": "b", "lr": 2}]})
    assert [stage.lr for stage in recipe.stages] == [0.5, 2]


def test_notes_reach_the_user(cli: Cli, tiny_photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    options = ("--model", "test_efficientnet", "--set", "model.weights=none", "--image-size", "32", "--dry-run")
    result = cli("train", tiny_photos, *options, "--set", "stages.all.learning_rate=1e-3")
    assert result.code == 2
    assert "learning_rate and lr are both given" in result.err
    kinds = "--set", "stages=[{name: a, train: head, optimizer: adam, learning_rate: 1e-3}]"
    result = cli("train", tiny_photos, *options, *kinds)
    assert result.code == 0, result.err
    assert "note: stages.0.learning_rate: 0.001 is Keras's spelling of lr: 0.001" in caplog.text
