"""The JSON schema knows every key, says what it does, and accepts what regraft accepts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
from tests.conftest import Cli
from timm.optim import get_optimizer_info, list_optimizers

import regraft as rg
from regraft.recipe.recipe import default_recipe, schema, validate_recipe
from regraft.settings.optimizers import OPTIMIZERS, optimizer_mistake

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
    ("values", "where"),
    [
        ({"sed": 1}, "sed"),
        ({"stages": []}, "stages"),
        ({"stages": [{"epochs": 3}]}, r"stages\.0\.name"),
        ({"stages": [{"name": "a", "optimizer": "adamm"}]}, r"stages\.0\.optimizer"),
        ({"stages": [{"name": "a", "lr": 0}]}, r"stages\.0\.lr"),
        ({"stages": [{"name": "a", "schedule": "step"}]}, r"stages\.0\.schedule"),
        ({"stages": [{"name": "a", "augment": {"hue": 3}}]}, r"stages\.0\.augment\.hue"),
        ({"defaults": {"name": "a"}}, r"defaults\.name"),
        ({"defaults": {"epocs": 1}}, r"defaults\.epocs"),
        ({"model": {"image_size": "big"}}, r"model\.image_size"),
    ],
)
def test_the_schema_refuses_what_regraft_refuses(values: dict[str, Any], where: str) -> None:
    from regraft.errors import SettingsError

    assert list(jsonschema.Draft202012Validator(schema()).iter_errors(values))
    with pytest.raises(SettingsError, match=rf"- {where}[.:]"):
        validate_recipe(values)


def test_the_command_prints_it(cli: Cli) -> None:
    result = cli("recipe", "--schema")
    assert result.code == 0
    assert json.loads(result.out) == schema()


def test_a_stage_names_every_optimizer_of_timm_that_can_be_resumed() -> None:
    def is_usable(name: str) -> bool:
        info = get_optimizer_info(name)
        return not (isinstance(info.opt_class, str) or info.second_order or info.opt_class.__name__ == "Kron")

    assert set(OPTIMIZERS) == {"auto", "lbfgs", *filter(is_usable, list_optimizers())}
    for name in set(list_optimizers()) - set(OPTIMIZERS):
        assert "; choose another" in (optimizer_mistake(name) or ""), name


def test_a_recipe_is_made_of_the_classes_that_python_has() -> None:
    recipe = validate_recipe({"stages": [{"name": "a", "augment": {"rotation": 3}, "schedule": {"name": "cosine"}}]})
    assert recipe.stages == [rg.Stage("a", augment=rg.Augment(rotation=3), schedule=rg.Schedule("cosine"))]
    assert recipe.head == rg.Head()
    assert recipe.model_dump()["stages"] == [recipe.stages[0].to_dict() | {"train": "head"}]


def test_help_on_a_class_lists_its_settings() -> None:
    assert "flip: flips with probability 0.5" in (rg.Augment.__doc__ or "")
    assert "Attributes" not in schema()["$defs"]["Augment"]["description"]
