"""`regraft runs` and `regraft inspect runs`: one row for each run, whatever state it is in."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from tests.conftest import Cli

from regraft.run.folder import RunFolder
from regraft.run.listing import holds_runs, list_runs

RECIPE = "model: {name: resnet18}\ndata: {source: photos}\nmonitor: val_loss\nstages: [{name: head}, {name: top}]\n"


def run(root: Path, name: str, state: str, *, at: int, best: float | None = None, recipe: str = RECIPE) -> Path:
    path = root / name
    path.mkdir(parents=True)
    (path / "recipe.yaml").write_text(recipe)
    (path / "status.json").write_text(json.dumps({"state": state}))
    if best is not None:
        (path / "best.json").write_text(json.dumps({"stage": "top", "epoch": 2, "value": best}))
    os.utime(path / "status.json", (at, at))
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "runs"
    run(root, "b", "finished", at=2_000_000, best=0.1234)
    run(root, "a", "running", at=1_000_000)
    run(root, "broken", "failed", at=3_000_000, recipe="- [1, 2")
    (root / "notes").mkdir()
    (root / "file.txt").write_text("x")
    return root


def test_a_row_for_each_run_the_newest_last(root: Path) -> None:
    rows = list_runs(root)
    assert [(row.name, row.state, row.stages, row.best, row.data) for row in rows] == [
        ("a", "interrupted", "head, top", "–", "photos"),
        ("b", "finished", "head, top", "val_loss 0.1234", "photos"),
        ("broken", "failed", "–", "–", "–"),
    ]
    assert holds_runs(root)
    assert not holds_runs(root / "a"), "a run is no folder of runs"
    assert not holds_runs(root / "notes")


def test_one_that_is_written_to_now_is_running(root: Path) -> None:
    with RunFolder(root / "a").locked():
        assert list_runs(root)[0].state == "running"
    assert list_runs(root)[0].state == "interrupted"


def test_on_the_command_line(cli: Cli, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root.parent)
    for arguments in (["runs"], ["inspect", "runs"], ["inspect", "runs/"]):
        result = cli(*arguments)
        assert result.code == 0, result.err
        assert [line.split()[0] for line in result.out.splitlines()] == ["run", "a", "b", "broken"]
    assert json.loads(cli("runs", "--json").out)[1]["best"] == "val_loss 0.1234"
    lacking = cli("runs", "elsewhere")
    assert (lacking.code, "does not exist" in lacking.err) == (2, True)
    assert "is a run itself" in cli("runs", "runs/a").err


def test_records_that_would_hang_or_unfold_are_dashes(tmp_path: Path) -> None:
    bomb = "a: &a [1, 1]\nb: &b [*a, *a]\ndata: {source: *b}\nstages: []\n"
    path = run(tmp_path, "bomb", "finished", at=1, recipe=bomb)
    (path / "best.json").write_text(json.dumps({"value": 10**400}))
    pipe = run(tmp_path, "pipe", "running", at=2)
    (pipe / "best.json").symlink_to(path / "best.json")
    for name in ("status.json", ".lock"):
        (pipe / name).unlink(missing_ok=True)
        os.mkfifo(pipe / name)
    rows = {row.name: row for row in list_runs(tmp_path)}
    assert (rows["bomb"].stages, rows["bomb"].data, rows["bomb"].best) == ("–", "–", "–")
    assert (rows["pipe"].state, rows["pipe"].best) == ("not begun", "–")
    assert not RunFolder(pipe).is_held()
