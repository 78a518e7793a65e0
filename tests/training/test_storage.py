"""A disk that fails at any one of its calls: the error is the disk's, the folder is whole, and the run goes on."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from regraft import pipeline
from regraft.errors import RegraftError, StorageError
from regraft.run.folder import RunFolder
from tests.training import tiny
from tests.training.faults import FailingDisk, require_consistent, result, temporary
from tests.training.tiny import few_photos_in, tiny_network


@pytest.fixture(scope="module")
def few_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return few_photos_in(tmp_path_factory.mktemp("few") / "photos")


NEVER_STOPS = r"mkdir |\w+ \.?(log\.txt|metrics\.csv|events\.out\.tfevents|tensorboard|\d+\.jpg)"


def begin(photos: Path, out: Path) -> RunFolder:
    return tiny.begin(photos, out, save_steps=1)


def go_on(photos: Path, out: Path) -> RunFolder:
    """What a user does after an error: resume, or where the run never began, the same command again."""
    if (out / "recipe.yaml").exists():
        return pipeline.resume(out, model=tiny_network(), show=False)
    return begin(photos, out)


@pytest.fixture(scope="module")
def whole(few_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return begin(few_photos, tmp_path_factory.mktemp("runs") / "whole")


def fail_once(
    begin: Callable[[], RunFolder], out: Path, fail_at: int, code: int, *, for_good: bool
) -> tuple[FailingDisk, bool]:
    """Run until the disk fails; returns the disk and whether the run came to its end."""
    with pytest.MonkeyPatch.context() as patch:
        disk = FailingDisk(patch, out, fail_at, code, for_good=for_good)
        try:
            begin()
        except StorageError:
            return disk, False
    return disk, True


def check_one_failure(photos: Path, out: Path, whole: RunFolder, fail_at: int, code: int, *, for_good: bool) -> bool:
    """Whether the disk still failed at call `fail_at`; all that has to hold then is asserted."""
    disk, ended = fail_once(lambda: begin(photos, out), out, fail_at, code, for_good=for_good)
    run = RunFolder(out)
    require_consistent(run)
    if not ended:
        assert disk.has_failed
        go_on(photos, out)
    elif disk.has_failed:  # logs never stop a run, and to make a folder that is there already is to do nothing
        assert all(re.match(NEVER_STOPS, name) for name in disk.failed_at), disk.failed_at
    assert result(run) == result(whole), disk.failed_at
    assert temporary(run) == [], disk.failed_at
    return disk.has_failed


@pytest.mark.parametrize(("fail_at", "code", "for_good"), [(3, errno.EIO, False), (40, errno.ENOSPC, True)])
def test_failing_disk_is_a_storage_error_and_the_run_goes_on_to_the_same_bits(
    few_photos: Path, whole: RunFolder, tmp_path: Path, fail_at: int, code: int, for_good: bool
) -> None:
    assert check_one_failure(few_photos, tmp_path / "run", whole, fail_at, code, for_good=for_good)


@pytest.mark.crash
@pytest.mark.timeout(3000)
@pytest.mark.parametrize(("code", "for_good"), [(errno.ENOSPC, True), (errno.EIO, False)])
def test_disk_failing_at_every_call_in_turn(
    few_photos: Path, whole: RunFolder, tmp_path: Path, code: int, for_good: bool
) -> None:
    fail_at = 1
    while check_one_failure(few_photos, tmp_path / str(fail_at), whole, fail_at, code, for_good=for_good):
        fail_at += 1
    print(f"the disk failed at each of {fail_at - 1} calls")
    assert fail_at > 100


def test_what_the_disk_fails_at_while_going_on_does_no_harm_either(
    few_photos: Path, whole: RunFolder, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    for fail_at in (60, 20, 9, 30):
        disk, ended = fail_once(lambda: go_on(few_photos, out), out, fail_at, errno.ENOSPC, for_good=True)
        assert disk.has_failed
        assert not ended
        require_consistent(RunFolder(out))
    assert result(go_on(few_photos, out)) == result(whole)


def test_a_read_only_or_full_place_is_told_before_anything_is_computed(
    few_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        FailingDisk(patch, tmp_path, 1, errno.EROFS, for_good=True)
        with pytest.raises(StorageError, match="read-only"):
            begin(few_photos, tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=1000))
        with pytest.raises(StorageError, match="free on the disk") as caught:
            begin(few_photos, tmp_path / "run")
    assert caught.value.exit_code == 7
    begin(few_photos, tmp_path / "run")


def test_the_same_folder_twice_is_refused_with_the_command_that_goes_on(few_photos: Path, whole: RunFolder) -> None:
    with pytest.raises(RegraftError, match="regraft resume"):
        begin(few_photos, whole.path)
