"""The JSON schema knows every key, says what it does, and accepts what regraft accepts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from regraft.plan.optimizers import optimizer_names
from regraft.plan.rules import EarlyStopping, Plateau, Schedule
from regraft.plan.stages import Stage
from regraft.recipe import default_recipe, schema, validate_recipe
from regraft.recipe_stages import (
    OPTIMIZERS,
    AugmentSettings,
    EarlyStoppingSettings,
    PlateauSettings,
    ScheduleSettings,
    StageSettings,
)
from tests.conftest import Cli

jsonschema = pytest.importorskip("jsonschema", reason="jsonschema is not installed: `uv sync --group dev`")


def groups() -> Iterator[tuple[str, dict[str, Any]]]:
    whole = schema()
    yield "recipe", whole
    yield from whole["$defs"].items()


def test_every_key_has_a_description() -> None:
    bare = [
        f"{name}.{key}"
        for name, group in groups()
        for key, entry in group["properties"].items()
        if "description" not in entry and "$ref" not in entry
    ]
    assert not bare


def test_the_schema_is_valid_and_accepts_the_default_recipe() -> None:
    whole = schema()
    jsonschema.Draft202012Validator.check_schema(whole)
    validator = jsonschema.Draft202012Validator(whole)
    for values in ({}, default_recipe(), json.loads(json.dumps(validate_recipe(default_recipe()).model_dump()))):
        assert not [error.message for error in validator.iter_errors(values)]
    keras = {"stages": [{"name": "a", "learning_rate": 1, "augment": {"rotation_range": 3}}], "defaults": {"epochs": 2}}
    assert not list(validator.iter_errors(keras))


@pytest.mark.parametrize(
    "values",
    [
        {"sed": 1},
        {"stages": []},
        {"stages": [{"epochs": 3}]},
        {"stages": [{"name": "a", "optimizer": "adamm"}]},
        {"stages": [{"name": "a", "lr": 0}]},
        {"stages": [{"name": "a", "schedule": "step"}]},
        {"stages": [{"name": "a", "augment": {"hue": 3}}]},
        {"defaults": {"name": "a"}},
        {"defaults": {"epocs": 1}},
        {"model": {"image_size": "big"}},
    ],
)
def test_the_schema_refuses_what_regraft_refuses(values: dict[str, Any]) -> None:
    from regraft.errors import SettingsError

    assert list(jsonschema.Draft202012Validator(schema()).iter_errors(values))
    with pytest.raises(SettingsError):
        validate_recipe(values)


def test_the_command_prints_it(cli: Cli) -> None:
    result = cli("recipe", "--schema")
    assert result.code == 0
    assert json.loads(result.out) == schema()


def test_a_recipe_names_exactly_the_optimizers_that_a_stage_takes() -> None:
    assert set(OPTIMIZERS) == set(optimizer_names())


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        (StageSettings, Stage),
        (ScheduleSettings, Schedule),
        (EarlyStoppingSettings, EarlyStopping),
        (PlateauSettings, Plateau),
    ],
)
def test_recipe_and_python_have_the_same_settings_with_the_same_defaults(settings: Any, kind: Any) -> None:
    import dataclasses

    ours = {item.name for item in dataclasses.fields(kind)}
    assert set(settings.model_fields) == ours
    made = Stage("a") if kind is Stage else kind()
    given = settings(name="a") if kind is Stage else settings(name="constant") if kind is Schedule else settings()
    built = Stage.from_dict(given.model_dump()) if kind is Stage else kind(**given.model_dump())
    assert built == made


def test_augmentation_has_the_same_settings_with_the_same_defaults() -> None:
    from regraft.data.augment import Augment

    assert Augment(**AugmentSettings().model_dump()) == Augment()
