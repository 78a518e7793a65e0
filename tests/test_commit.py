"""Every write has one commit point: at whatever call the disk fails, the old file or folder is still whole."""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors import SafetensorError
from safetensors.torch import save_file

from regraft import commit
from regraft.errors import StorageError
from tests.conftest import REAL_FSYNC

CALLS = ("fsync", "rename", "replace", "mkdir")


@pytest.fixture(autouse=True)
def _real_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", REAL_FSYNC)


class FailingDisk:
    """Lets the disk fail at the n-th of the calls that change it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, fail_at: int, code: int = errno.ENOSPC) -> None:
        self.count = 0
        self.failed = False
        for name in CALLS:
            monkeypatch.setattr(os, name, self._wrapped(getattr(os, name), fail_at, code))

    def _wrapped(self, real: Callable[..., object], fail_at: int, code: int) -> Callable[..., object]:
        def call(*args: object, **kwargs: object) -> object:
            self.count += 1
            if self.count == fail_at:
                self.failed = True
                raise OSError(code, os.strerror(code))
            return real(*args, **kwargs)

        return call


def write_folder(final: Path, text: str) -> None:
    with commit.folder(final) as folder:
        (folder / "inside").mkdir(exist_ok=True)
        (folder / "a.txt").write_text(text)
        (folder / "inside" / "b.bin").write_bytes(text.encode() * 100)


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


@pytest.mark.parametrize("fail_at", range(2, 5))  # the first is the mkdir of what is there
def test_a_file_is_the_old_or_the_new_one_wherever_the_disk_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fail_at: int
) -> None:
    path = tmp_path / "record.json"
    commit.write_json(path, {"value": "old"})
    with monkeypatch.context() as patch:
        disk = FailingDisk(patch, fail_at)
        with pytest.raises(StorageError, match="disk is full"):
            commit.write_json(path, {"value": "new"})
    assert disk.failed
    assert json.loads(path.read_text())["value"] in ("old", "new")
    assert names(tmp_path) == ["record.json"]


@pytest.mark.parametrize("replaces", [False, True])
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
def test_a_folder_is_the_old_or_the_new_one_wherever_the_disk_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, replaces: bool, code: int
) -> None:
    fail_at, failures = 1, 0
    while True:
        root = tmp_path / str(fail_at)
        root.mkdir()
        final = root / "model"
        if replaces:
            write_folder(final, "old")
        with monkeypatch.context() as patch:
            disk = FailingDisk(patch, fail_at, code)
            try:
                write_folder(final, "new")
            except StorageError:
                failures += 1
        if not disk.failed:
            break
        if replaces or final.exists():
            assert commit.damage(final) is None
            assert (final / "a.txt").read_text() in (("old", "new") if replaces else ("new",))
        commit.sweep(root)
        assert names(root) == (["model"] if final.exists() else [])
        fail_at += 1
    assert failures >= 5  # mkdir, a sync for each file, the manifest and the folders, the renames
    assert (final / "a.txt").read_text() == "new"
    assert names(root) == ["model"]


def test_an_error_inside_leaves_the_old_folder_and_nothing_else(tmp_path: Path) -> None:
    final = tmp_path / "model"
    write_folder(final, "old")

    def fail_halfway() -> None:
        with commit.folder(final) as folder:
            (folder / "a.txt").write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_halfway()
    assert (final / "a.txt").read_text() == "old"
    assert names(tmp_path) == ["model"]


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda folder: (folder / "a.txt").write_text("ol"), "has 2 bytes instead of 3"),
        (lambda folder: (folder / "a.txt").write_text("olD"), "has changed since it was written"),
        (lambda folder: (folder / "a.txt").unlink(), "is missing"),
        (lambda folder: (folder / commit.MANIFEST).unlink(), "missing or unreadable"),
        (lambda folder: (folder / commit.MANIFEST).write_text('{"files": {"a.txt"'), "missing or unreadable"),
        (lambda folder: (folder / commit.MANIFEST).write_text("[]"), "missing or unreadable"),
        (lambda folder: (folder / commit.MANIFEST).write_text('{"files": []}'), "missing or unreadable"),
        (lambda folder: (folder / commit.MANIFEST).write_text('{"files": {"a.txt": null}}'), "missing or unreadable"),
    ],
)
def test_damage_is_found_and_named(tmp_path: Path, harm: Callable[[Path], object], reason: str) -> None:
    final = tmp_path / "model"
    write_folder(final, "old")
    assert commit.damage(final) is None
    harm(final)
    found = commit.damage(final)
    assert found is not None
    assert reason in found


def test_without_hashes_only_sizes_are_compared(tmp_path: Path) -> None:
    final = tmp_path / "model"
    write_folder(final, "old")
    (final / "a.txt").write_text("olD")
    assert commit.damage(final, hashes=False) is None
    assert commit.damage(final, only=["inside/b.bin"]) is None
    assert "does not list" in str(commit.damage(final, only=["c"]))


def dead_pid() -> int:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def test_sweep_gives_a_folder_its_name_back_that_was_being_replaced(tmp_path: Path) -> None:
    final = tmp_path / "model"
    write_folder(final, "old")
    pid = dead_pid()
    final.rename(tmp_path / f".model.trash-{pid}-0123abcd")
    (tmp_path / f".model.tmp-{pid}-0123abcd").mkdir()
    (tmp_path / f".metrics.json.tmp-{pid}-0123abcd").write_text("half")
    commit.sweep(tmp_path)
    assert names(tmp_path) == ["model"]
    assert (final / "a.txt").read_text() == "old"


def test_sweep_leaves_the_work_of_living_processes_and_other_files(tmp_path: Path) -> None:
    living = tmp_path / f".model.tmp-{os.getppid()}-0123abcd"
    living.mkdir()
    (tmp_path / ".hidden.tmp").write_text("the user's own")
    commit.sweep(tmp_path)
    assert names(tmp_path) == [".hidden.tmp", living.name]


def test_remove_takes_the_name_away_first(tmp_path: Path) -> None:
    write_folder(tmp_path / "model", "old")
    commit.remove(tmp_path / "model")
    assert names(tmp_path) == []


@pytest.fixture
def small_files() -> object:
    """Files may grow to 4 KiB only, as if the disk were full then."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.usefixtures("small_files")
def test_a_file_that_finds_no_room_is_a_storage_error(tmp_path: Path) -> None:
    path = tmp_path / "record.txt"
    commit.write_text(path, "old")
    with pytest.raises(StorageError) as caught:
        commit.write_text(path, "x" * 10_000)
    assert caught.value.exit_code == 7
    assert path.read_text() == "old"
    assert names(tmp_path) == ["record.txt"]


@pytest.mark.usefixtures("small_files")
def test_a_library_that_finds_no_room_is_a_storage_error(tmp_path: Path) -> None:
    import torch

    with pytest.raises(StorageError, match="would be larger"), commit.folder(tmp_path / "model") as folder:
        save_file({"weight": torch.zeros(5000)}, folder / "model.safetensors")
    with pytest.raises(StorageError, match="would be larger"), commit.folder(tmp_path / "model") as folder:
        torch.save({"weight": torch.zeros(5000)}, folder / "model.pt")
    assert names(tmp_path) == []


def test_places_where_nothing_can_be_written_are_storage_errors(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    places = (
        (tmp_path / "file" / "record", "there is a file of that name"),
        (tmp_path / ("n" * 300), "name is too long"),
    )
    for path, said in places:
        with pytest.raises(StorageError, match=said):
            commit.write_text(path, "text")
    (tmp_path / "folder").mkdir()
    with pytest.raises(StorageError, match="folder of that name"):
        commit.write_text(tmp_path / "folder", "text")


def test_a_folder_that_is_taken_away_meanwhile_is_a_storage_error(tmp_path: Path) -> None:
    import torch

    def write(run: Path) -> None:
        run.mkdir()
        with commit.folder(run / "model") as folder:
            shutil.rmtree(run)
            save_file({"weight": torch.zeros(5)}, folder / "model.safetensors")

    run = tmp_path / "run"
    with pytest.raises(StorageError, match="no longer there"):
        write(run)


@pytest.mark.parametrize(("code", "reason"), [(errno.EIO, "input/output"), (errno.EDQUOT, "quota")])
def test_what_a_library_says_of_the_disk_is_a_storage_error(tmp_path: Path, code: int, reason: str) -> None:
    with pytest.raises(StorageError, match=reason), commit.storage_errors(tmp_path):
        raise SafetensorError(f"Error while serializing: I/O error: failure (os error {code})")


def test_an_error_that_is_not_the_disks_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="x"), commit.storage_errors(tmp_path):
        raise KeyError("x")


def test_too_little_space_is_told_before_anything_is_written(tmp_path: Path) -> None:
    commit.require_space(tmp_path / "new" / "run", 1)
    with pytest.raises(StorageError, match="MB free"):
        commit.require_space(tmp_path / "new" / "run", 1 << 60)


def test_json_keeps_file_names_that_are_no_utf8(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    commit.write_json(tmp_path / "rows.json", {"path": name, "class": "Süß"})
    assert json.loads((tmp_path / "rows.json").read_text(encoding="utf-8")) == {"path": name, "class": "Süß"}
    with pytest.raises(ValueError, match="JSON"):
        commit.write_json(tmp_path / "rows.json", float("nan"))


def test_files_of_a_committed_folder_can_be_read_by_others(tmp_path: Path) -> None:
    import torch

    with commit.folder(tmp_path / "model") as folder:
        save_file({"weight": torch.zeros(3)}, folder / "model.safetensors")
    assert (tmp_path / "model" / "model.safetensors").stat().st_mode & 0o777 == 0o666 & ~umask()


def umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
