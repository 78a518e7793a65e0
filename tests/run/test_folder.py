"""Run folders: the next free name, nothing overwritten, one writer at a time."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from regraft.errors import SettingsError, StorageError
from regraft.run.folder import RunFolder, create_run, open_run


def test_without_out_the_next_free_number_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    made = [create_run(None, "photos").path for _ in range(3)]
    assert made == [Path("runs/photos-1"), Path("runs/photos-2"), Path("runs/photos-3")]
    (tmp_path / "runs" / "photos-4").write_text("a file")
    assert create_run(None, "photos").path == Path("runs/photos-5")


def test_an_empty_folder_may_be_used_and_a_full_one_may_not(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert create_run(tmp_path / "empty", "x").path == tmp_path / "empty"
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "letter.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    for name in ("full", "file", "link"):
        with pytest.raises(SettingsError, match="exists already") as caught:
            create_run(tmp_path / name, "x")
        assert "resume" not in str(caught.value)  # there is no run to go on with
    (tmp_path / "full" / "recipe.yaml").write_text("seed: 1")
    with pytest.raises(SettingsError, match="regraft resume"):
        create_run(tmp_path / "full", "x")


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (None, "killed before its first epoch"),
        ('{"state": "running"}', "is going on, or was killed"),
        ('{"state": "stopped"}', "was stopped"),
        ('{"state": "failed"}', "has failed"),
        ('{"state": "finished"}', "is finished"),
        ('{"state": "\\u001b[2J"}', "holds a run."),
        ("[]", "holds a run."),
    ],
)
def test_what_stands_in_the_way_of_a_new_run_is_said(status: str | None, said: str, tmp_path: Path) -> None:
    (tmp_path / "recipe.yaml").write_text("seed: 1")
    if status is not None:
        (tmp_path / "status.json").write_text(status)
    with pytest.raises(SettingsError, match=re.escape(said)) as caught:
        create_run(tmp_path, "x")
    assert f"regraft resume {tmp_path}" in str(caught.value)


def test_a_run_that_never_began_says_how_to_begin_it(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "command.txt").write_text("regraft train photos --out run\n")
    with pytest.raises(SettingsError, match="killed before it began") as caught:
        open_run(tmp_path)
    assert "`regraft train photos --out run`" in str(caught.value)
    assert create_run(tmp_path, "x").path == tmp_path


def test_an_out_below_a_file_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StorageError, match="part of the path is a file"):
        create_run(tmp_path / "file" / "run", "x")


def test_open_run_tells_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="does not exist"):
        open_run(tmp_path / "missing")
    with pytest.raises(SettingsError, match="is not a run folder"):
        open_run(tmp_path)


def test_checkpoint_steps_are_numbers_in_order_and_nothing_else(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert run.checkpoint_steps() == []
    for name in ("step-000100", "step-000020", "step-1000000", ".step-000003.tmp-1-00000000", "notes"):
        (run.checkpoints / name).mkdir(parents=True)
    assert run.checkpoint_steps() == [20, 100, 1000000]


def test_damaged_records_are_storage_errors(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    assert run.read(run.status) is None
    run.status.write_text('{"state": ')
    with pytest.raises(StorageError, match=r"status\.json"):
        run.read(run.status)
    for text in ("- a list", "a: [", "\x00"):
        run.recipe.write_text(text)
        with pytest.raises(StorageError, match=r"recipe\.yaml"):
            run.settings()


HOLD = """
import sys
from pathlib import Path
from regraft.run.folder import RunFolder
with RunFolder(Path(sys.argv[1])).locked():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_one_process_writes_a_run_and_a_dead_ones_lock_is_taken_over(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        for _ in range(2):  # the refused process must not take away the lock that it was refused
            with pytest.raises(StorageError, match="another process"), run.locked():
                pass
        holder.kill()
    assert (tmp_path / ".lock").exists()
    with run.locked():
        assert (tmp_path / ".lock").exists()
    assert not (tmp_path / ".lock").exists()
