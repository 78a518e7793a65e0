"""`regraft resume` on the command line: a finished run left alone, made longer, given a further stage, refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from tests.conftest import Cli

from regraft.run.folder import RunFolder
from regraft.run.records import read_metrics


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> RunFolder:
    return RunFolder(shutil.copytree(tiny_run, tmp_path / "run"))


def test_changes_that_were_not_allowed_are_listed_with_the_flags_that_allow_them(cli: Cli, run: RunFolder) -> None:
    ended = cli("resume", run.path, "--set", "stages.top.epochs=2")
    assert ended.code == 2
    assert "stages.1.epochs: 1 in the run, 2 now" in ended.err
    assert "--allow-change stages.1.epochs" in ended.err
    ended = cli("resume", run.path, "--set", "model.image_size=64", "--allow-change", "model.image_size")
    assert ended.code == 2
    assert "of this network" in ended.err


def test_a_finished_run_is_made_longer_and_gets_a_further_stage(cli: Cli, run: RunFolder) -> None:
    more = ["--set", "stages.top.epochs=2", "--set", "stages.2={name: all, train: all, epochs: 1, lr: 1e-4}"]
    allow = ["--allow-change", "stages.top.epochs", "--allow-change", "stages.2"]
    ended = cli("resume", run.path, *more, *allow)
    assert ended.code == 0, ended.err
    assert [row["stage"] for row in read_metrics(run.metrics)][-3:] == ["top", "top", "all"]
    assert [stage["name"] for stage in run.settings()["stages"]] == ["head", "top", "all"]
    assert "nothing to do" in cli("resume", run.path).out


def test_a_recipe_file_is_held_against_the_run(cli: Cli, run: RunFolder, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    shutil.copy(run.recipe, recipe)
    recipe.write_text(run.recipe.read_text().replace("epochs: 1\n", "epochs: 3\n"))
    ended = cli("resume", run.path, "--recipe", recipe)
    assert ended.code == 2
    assert "stages.1.epochs: 1 in the run, 3 now" in ended.err
