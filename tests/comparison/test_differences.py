"""Which settings differ between the runs of a folder."""

from __future__ import annotations

from pathlib import Path

from regraft.comparison.differences import differences_of_runs, recipe_differences


def written(root: Path, name: str, text: str) -> None:
    (root / name).mkdir(parents=True)
    (root / name / "recipe.yaml").write_text(text)


def test_settings_that_differ_or_are_absent_are_told(tmp_path: Path) -> None:
    written(tmp_path, "a", "model: {name: resnet18}\nstages: [{name: head, lr: 0.001}]\nseed: 1\n")
    written(tmp_path, "b", "model: {name: resnet18}\nstages: [{name: head, lr: 0.01}, {name: all}]\nseed: 1\n")
    written(tmp_path, "c", "no: [recipe\n")
    found = recipe_differences(tmp_path)
    assert found == {"stages.0.lr": {"a": 0.001, "b": 0.01}, "stages.1.name": {"b": "all"}}
    lines = differences_of_runs(tmp_path).splitlines()
    assert lines[:3] == ["stages.0.lr", "  a  0.001", "  b  0.01"]
    assert "  a  –" in lines


def test_one_run_and_equal_runs(tmp_path: Path) -> None:
    written(tmp_path, "a", "seed: 1\n")
    assert differences_of_runs(tmp_path) == "One run has nothing to differ from."
    written(tmp_path, "b", "seed: 1\n")
    assert differences_of_runs(tmp_path) == "The recipes of these runs are the same."
