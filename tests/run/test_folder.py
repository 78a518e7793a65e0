"""Run folders: the next free name, nothing overwritten, one writer at a time."""

from __future__ import annotations

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


def test_an_out_below_a_file_is_a_storage_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StorageError):
        create_run(tmp_path / "file" / "run", "x")


def test_open_run_tells_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="does not exist"):
        open_run(tmp_path / "missing")
    with pytest.raises(SettingsError, match="is no run folder"):
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
