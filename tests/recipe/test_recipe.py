"""Recipes: read as people write them, checked all at once, and never run anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from regraft.errors import SettingsError
from regraft.recipe.recipe import apply_set, default_recipe, read_recipe, validate_recipe


def mistakes(values: dict[str, Any]) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        validate_recipe(values)
    assert caught.value.exit_code == 2
    return caught.value.details


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_default_recipe_is_a_head_stage_and_one_of_all_layers() -> None:
    recipe = validate_recipe(default_recipe())
    assert [stage.name for stage in recipe.stages] == ["head", "all"]
    assert recipe.stages[0].train == "head"
    assert validate_recipe({}).stages == recipe.stages


def test_a_resolved_recipe_reads_back_equal(tmp_path: Path) -> None:
    recipe = validate_recipe(default_recipe())
    path = write(tmp_path, yaml.safe_dump(recipe.model_dump(mode="json")))
    assert validate_recipe(read_recipe(path)) == recipe


def test_the_recipe_of_the_design_is_read(tmp_path: Path) -> None:
    text = """\
model: {name: vgg16, weights: vgg16_notop.h5, skip: [], image_size: 150}
head: {pool: flatten, hidden: [256], dropout: 0.5}
data: {source: dogs-vs-cats-small, batch_size: 20, preprocess: model, resize: squash}
seed: 1
stages:
- {name: head, train: head, epochs: 30, optimizer: adam, lr: 1e-3, augment: {rotation: 40, flip: horizontal}}
- {name: block5, train: [block5, head], lr: 1.0e-5, early_stopping: {monitor: val_loss, patience: 4}}
"""
    recipe = validate_recipe(read_recipe(write(tmp_path, text)))
    assert recipe.stages[0].lr == 1e-3
    assert recipe.stages[1].train == ["block5", "head"]
    assert recipe.head.hidden == [256]


def test_all_mistakes_come_at_once_with_the_nearest_names() -> None:
    found = mistakes(
        {
            "sed": 1,
            "model": {"nam": "vgg16", "image_size": "big"},
            "head": {"hidden": [0], "pool": "mean"},
            "data": 5,
            "defaults": {"lrr": 2},
            "stages": [{"name": "a", "epocs": 3, "lr": -1, "augment": {"hue": 3}}, {"epochs": "x"}],
        }
    )
    expected = [
        "sed: no such setting; did you mean 'seed'",
        "model.nam: no such setting; did you mean 'name'",
        "model.image_size: must be a whole number of pixels, or two as [height, width]; it is 'big'",
        "head.hidden.0: must be 1 or more; it is 0",
        "head.pool: must be 'flatten', 'avg', 'max' or 'avgmax'; it is 'mean'",
        "data: must be a mapping; it is 5",
        "defaults.lrr: no such setting; did you mean 'lr'",
        "stages.0.epocs: no such setting; did you mean 'epochs'",
        "stages.0.lr: must be above 0; it is -1",
        "stages.0.augment.hue: must be at most 0.5; it is 3",
        "stages.1.name: is missing",
        "stages.1.epochs: must be a whole number; it is 'x'",
    ]
    assert len(found) == len(expected)
    for line in expected:
        assert any(given.startswith(line) for given in found), line


@pytest.mark.parametrize(
    "values",
    [
        {"stages": []},
        {"stages": None},
        {"stages": "head"},
        {"defaults": 3},
        {"seed": -1},
        {"seed": 1 << 64},
        {"model": {"image_size": 0}},
        {"model": {"image_size": [1, 2, 3]}},
        {"stages": [{"name": "a", "lr": float("inf")}]},
        {"stages": [{"name": "a", "lr": float("nan")}]},
        {"stages": [{"name": ""}]},
    ],
)
def test_a_single_mistake_is_one_line(values: dict[str, Any]) -> None:
    assert len(mistakes(values)) == 1


def test_defaults_fill_what_stages_leave_open() -> None:
    values = {"defaults": {"epochs": 7, "lr": 0.5}, "stages": [{"name": "a"}, {"name": "b", "epochs": 2}]}
    recipe = validate_recipe(values)
    assert [(stage.epochs, stage.lr) for stage in recipe.stages] == [(7, 0.5), (2, 0.5)]
    assert recipe.defaults == {}


def test_defaults_have_an_effect_on_the_built_in_stages() -> None:
    recipe = validate_recipe({"defaults": {"epochs": 1}})
    assert [stage.epochs for stage in recipe.stages] == [1, 1]
    assert recipe.stages[1].schedule == "cosine"


@pytest.mark.parametrize(
    ("assignment", "value"),
    [
        ("stages.1.lr=3e-5", 3e-5),
        ("stages.all.lr=3e-5", 3e-5),
        ("stages.all.lr=1", 1),
    ],
)
def test_set_finds_stages_by_number_and_by_name(assignment: str, value: float) -> None:
    values = default_recipe()
    apply_set(values, assignment)
    assert validate_recipe(values).stages[1].lr == value


def test_set_reaches_the_built_in_stages_of_a_recipe_without_any() -> None:
    values: dict[str, Any] = {}
    apply_set(values, "stages.head.epochs=7")
    assert [stage.epochs for stage in validate_recipe(values).stages] == [7, 4]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e3", 1000.0),
        (".5", 0.5),
        ("-2", -2),
        ("[1, 2e-1]", [1, 0.2]),
        ("true", True),
        ("null", None),
        ("2024-01-31", "2024-01-31"),
        ("2024-13-45", "2024-13-45"),
        ("1:30", "1:30"),
        ("007", "007"),
        ("a: [", "a: ["),
        ("x=y", "x=y"),
        ("!!python/object/apply:os.getcwd []", "!!python/object/apply:os.getcwd []"),
    ],
)
def test_set_reads_values_as_people_mean_them(text: str, value: object) -> None:
    values: dict[str, Any] = {}
    apply_set(values, f"data.x={text}")
    assert values["data"]["x"] == value
    assert type(values["data"]["x"]) is type(value)


@pytest.mark.parametrize(
    "assignment", ["stages.1.lr", "=3", "a..b=1", "stages.7.lr=1", "stages.tip.lr=1", "stages.head.name.first=1"]
)
def test_set_refuses_what_leads_nowhere(assignment: str) -> None:
    def apply_and_check() -> None:
        values = default_recipe()
        apply_set(values, assignment)
        validate_recipe(values)

    with pytest.raises(SettingsError) as caught:
        apply_and_check()
    assert caught.value.exit_code == 2


def test_other_peoples_words_for_a_setting_are_understood() -> None:
    (line,) = mistakes({"stages": [{"name": "a", "unfreeze": "head"}]})
    assert line == "stages.0.unfreeze: no such setting; did you mean 'train'?"


def test_a_folder_named_by_a_year_or_a_date_is_a_name(tmp_path: Path) -> None:
    for name in ("2024", "2024-01-31"):
        recipe = validate_recipe(read_recipe(write(tmp_path, f"data: {{source: {name}}}")))
        assert recipe.data.source == name


BOMB = "a: &a [x]\n" + "\n".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [" + ", ".join([f"*{chr(97 + i)}"] * 9) + "]" for i in range(9)
)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (BOMB, "aliases"),
        ("model: !!python/object/apply:os.system ['true']", "could not determine a constructor"),
        ("seed: 1\nseed: 2", "duplicate key 'seed' (line 2)"),
        ("model: {name: a, name: b}", "duplicate key 'name'"),
        ("1: 2", "is not a string"),
        ("? [a]\n: 1", "is not a string"),
        ("- head", "its top level is not a mapping"),
        ("", "its top level is not a mapping"),
        ("a: [", "while parsing"),
        ("[" * 100_000, "recursion"),
        ("#" * (1 << 21), "the limit is"),
    ],
)
def test_hostile_or_broken_recipes_are_refused(tmp_path: Path, text: str, reason: str) -> None:
    with pytest.raises(SettingsError, match="cannot be read") as caught:
        read_recipe(write(tmp_path, text))
    assert reason in str(caught.value)


def test_a_recipe_that_is_no_text_or_is_missing(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"\xff\xd8\xff\xe0" * 9)
    for path in (tmp_path / "photo.jpg", tmp_path / "missing.yaml", tmp_path):
        with pytest.raises(SettingsError, match="cannot be read"):
            read_recipe(path)


@pytest.mark.parametrize("word", ["off", "'off'", "false", "ram", "disk", "auto"])
def test_the_plain_word_off_is_a_cache_mode(tmp_path: Path, word: str) -> None:
    recipe = validate_recipe(read_recipe(write(tmp_path, f"data: {{cache: {word}}}")))
    assert recipe.data.cache == {"'off'": "off", "false": "off"}.get(word, word)
    path = write(tmp_path, yaml.safe_dump(recipe.model_dump(mode="json")))
    assert validate_recipe(read_recipe(path)) == recipe


@pytest.mark.parametrize(("text", "value"), [("off", "off"), ("auto", "auto"), ("{views: 3}", {"views": 3})])
def test_the_feature_cache_is_a_word_or_a_number_of_views(tmp_path: Path, text: str, value: object) -> None:
    recipe = validate_recipe(read_recipe(write(tmp_path, f"feature_cache: {text}")))
    assert recipe.model_dump(mode="json")["feature_cache"] == value
    assert validate_recipe(recipe.model_dump(mode="json")) == recipe
    assert mistakes({"feature_cache": {"views": 0}})
    assert mistakes({"feature_cache": "sometimes"})


def test_only_some_stages_in_the_order_of_the_recipe() -> None:
    recipe = validate_recipe(default_recipe())
    assert [stage.name for stage in recipe.with_stages(["all", "head"]).stages] == ["head", "all"]
    assert [stage.name for stage in recipe.with_stages(["all"]).stages] == ["all"]
    with pytest.raises(SettingsError, match="no stage 'alls'"):
        recipe.with_stages(["alls"])


def test_what_a_recipe_says_about_data() -> None:
    data = validate_recipe({"data": {"source": "a.csv", "fractions": [0.8, 0.2, 0], "names": "n.txt"}}).data
    assert data.choices() == {
        "labels": None,
        "names": "n.txt",
        "fractions": (0.8, 0.2, 0.0),
        "fold": None,
        "group": None,
        "masks": None,
        "class_table": None,
        "ignore": None,
    }
    assert validate_recipe({"data": {"fold": [1, 5]}}).data.fold == (1, 5)
    for word in ("model", "caffe", "tf", "torch", "raw"):
        assert validate_recipe({"data": {"preprocess": word}}).data.preprocess == word


@pytest.mark.parametrize(
    ("data", "line"),
    [
        ({"fractions": [0.7, 0.7, 0.1]}, "data.fractions: must be three fractions that add up to 1, the first above 0"),
        ({"fractions": [0.7, 0.3]}, "data.fractions.2: is missing"),
        ({"fold": [5, 5]}, "data.fold: must be [k, K] with k from 0 to K - 1, and K at least 2"),
        ({"split": [0.7, 0.3]}, "data.split: no such setting; did you mean 'fractions'?"),
        ({"preprocess": "cafe"}, "data.preprocess: must be 'model', 'caffe', 'tf', 'torch' or 'raw'; it is 'cafe'"),
        ({"preprocess": 3}, "data.preprocess: must be a mapping; it is 3"),
        ({"preprocess": {"men": 3}}, "data.preprocess.men: no such setting; did you mean 'mean'?"),
        ({"preprocess": {"mean": "red"}}, "data.preprocess.mean: must be a number, or a list; it is 'red'"),
        (
            {"preprocess": {"mean": [103.9, 116.8, 123.7]}},
            "data.preprocess: numbers such as 123.7 are on the scale 0 to 255; add `scale: 255`",
        ),
    ],
)
def test_mistakes_about_data_are_told_by_key(data: dict[str, Any], line: str) -> None:
    assert mistakes({"data": data}) == (line,)
