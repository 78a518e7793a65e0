"""Short forms of `--set` and the options `--epochs`, `--lr`, `--batch-size`: which stage they reach."""

from __future__ import annotations

from typing import Any

import pytest

from regraft.errors import SettingsError
from regraft.recipe.recipe import Recipe, set_all, validate_recipe


def stages(*names_and_optimizers: tuple[str, str]) -> dict[str, Any]:
    return {"stages": [{"name": name, "optimizer": optimizer} for name, optimizer in names_and_optimizers]}


def made(values: dict[str, Any], *assignments: str, only: list[str] | None = None) -> tuple[Recipe, list[str]]:
    notes = set_all(values, assignments, None, only)
    return validate_recipe(values), notes


def test_a_bare_setting_is_of_the_last_stage_that_takes_steps() -> None:
    recipe, notes = made(stages(("warm", "adamw"), ("top", "sgd"), ("polish", "lbfgs")), "lr=1e-3", "epochs=4")
    assert [(stage.lr, stage.epochs) for stage in recipe.stages] == [(None, None), (1e-3, 4), (None, None)]
    assert len(notes) == 2
    assert "'top'" in notes[0]


def test_without_stages_it_is_one_of_the_usual_ones() -> None:
    recipe, _ = made({}, "epochs=2", "lr=3e-5", "augment.rotation=20")
    assert recipe.stages[1].name == "all"
    assert (recipe.stages[1].epochs, recipe.stages[1].lr) == (2, 3e-5)
    assert recipe.stages[1].augment is not None
    assert recipe.stages[1].augment.rotation == 20
    assert recipe.stages[0].epochs == 10, "the head stays as it was"


def test_a_stage_by_its_name_all_stages_and_a_section_of_the_same_name() -> None:
    recipe, notes = made({}, "all.lr=2e-5", "stages.*.label_smoothing=0.1", "head.epochs=3", "head.dropout=0.2")
    assert recipe.stages[1].lr == 2e-5
    assert [stage.label_smoothing for stage in recipe.stages] == [0.1, 0.1]
    assert recipe.stages[0].epochs == 3, "the stage called head"
    assert recipe.head.dropout == 0.2, "the section called head"
    assert notes == [], "each of them says where it goes"


def test_of_the_stages_that_run_alone() -> None:
    recipe, notes = made({}, "epochs=5", only=["head"])
    head = recipe.stages[0]
    assert (head.epochs, head.optimizer) == (5, "adamw"), "a solved head would take no epochs"
    assert "instead of lbfgs" in notes[0]
    assert recipe.stages[1].epochs == 4


@pytest.mark.parametrize(
    ("assignment", "near"),
    [
        ("batch_size=4", "data.batch_size"),
        ("image_size=96", "model.image_size"),
        ("weights=none", "model.weights"),
        ("dropout=0.2", "head.dropout"),
        ("learning_rate=1e-3", "stages.*.lr"),
        ("threads=1", "numerics.threads"),
    ],
)
def test_other_bare_settings_are_refused_with_their_full_name(assignment: str, near: str) -> None:
    with pytest.raises(SettingsError) as error:
        made({}, assignment)
    assert any(f"did you mean {near!r}" in line for line in error.value.details)


def test_a_stage_that_takes_steps_by_the_defaults_keeps_its_optimizer() -> None:
    values = {"defaults": {"optimizer": "adam"}, "stages": [{"name": "head"}, {"name": "top"}]}
    recipe, notes = made(values, "lr=1e-5")
    assert [stage.optimizer for stage in recipe.stages] == ["adam", "adam"]
    assert len(notes) == 1
    assert "adamw" not in notes[0]
