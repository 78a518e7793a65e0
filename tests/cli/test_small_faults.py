"""Slips of a typist: what is said names the slip, and the way out."""

from __future__ import annotations

import os
import shutil
import signal
import zipfile
from pathlib import Path

import pytest
from tests.cli.test_errors import NO_WEIGHTS, assert_error
from tests.conftest import Cli, photos

from regraft import commit
from regraft.cli.front.stopped import Stopped, stops_raised
from regraft.errors import StorageError
from regraft.weights.limits import LimitError, check_shape


def small_run(root: Path, cli: Cli) -> Path:
    photos(root / "photos", {"cat": 6, "dog": 6})
    trained = cli(
        "train", str(root / "photos"), *NO_WEIGHTS, "--epochs", "1", "--stages", "all", "--out", str(root / "run")
    )
    assert trained.code == 0, trained.err
    return root / "run"


def test_patterns_and_stages_that_match_nothing_have_a_suggestion(tmp_path: Path, cli: Cli) -> None:
    assert_error(cli("inspect", "zzz*"), 2, "No model name matches 'zzz*'.")
    assert_error(cli("inspect", "resnt*"), 2, "No model name matches 'resnt*'; did you mean 'res")
    photos(tmp_path / "photos", {"cat": 6, "dog": 6})
    train = ("train", str(tmp_path / "photos"), *NO_WEIGHTS)
    assert_error(cli(*train, "--stages", "al"), 2, "The recipe has no stage 'al'; did you mean 'all'?")
    assert_error(cli(*train, "--device", "cpuu"), 2, "Unknown device 'cpuu'; did you mean 'cpu'")
    mistyped = cli(*train, "--set", "stages.0.train=stge:-1", "--dry-run")
    assert mistyped.code == 2
    assert "did you mean 'stage:-1'?" in mistyped.err


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--epochs", "0"), "it must be 1 or more"),
        (("--folds", "x"), "it must be a whole number"),
        (("--set", "epochs=0"), "epochs: must be 1 or more; it is 0"),
        (
            ("--set", "all.train_image_size=big"),
            "must be a whole number of pixels, or two as [height, width], or 'auto'; it is 'big'",
        ),
        (("--set", "all.schedule=step"), "step needs `every` or `milestones`"),
        (("--set", "all.schedule={name: step}"), "schedule: the schedule step needs `every` or `milestones`"),
        (("--set", "all.loss={}"), "or must have at least 1 entry, not 0"),
        (("--set", "all.decay_norm_and_bias=perhaps"), "must be true or false; it is 'perhaps'"),
        (("--set", "data.preprocess={pixels: 3}"), "data.preprocess.pixels: must be a mapping; it is 3"),
    ],
)
def test_wrong_values_are_told_in_regrafts_words(options: tuple[str, ...], told: str, tmp_path: Path, cli: Cli) -> None:
    photos(tmp_path / "photos", {"cat": 6, "dog": 6})
    result = cli("train", str(tmp_path / "photos"), *NO_WEIGHTS, *options, "--dry-run")
    assert result.code == 2
    assert told in result.err
    assert not any(word in result.err for word in ("Input should", "function-", "Dictionary", "1 items"))


def test_a_dry_run_tells_of_the_data_what_a_run_would(tmp_path: Path, cli: Cli) -> None:
    root = tmp_path / "photos"
    photos(root / "train", {"cat": 4, "dog": 4})
    photos(root / "val", {"cat": 2, "dog": 2})
    first = next((root / "train" / "cat").iterdir())
    shutil.copy(first, root / "val" / "cat" / f"copy{first.suffix}")
    result = cli("train", str(root), *NO_WEIGHTS, "--dry-run")
    assert result.code == 0, result.err
    assert "images are in train too" in result.out or "images is in train too" in result.out


def test_a_run_resumes_with_its_folder_spelled_otherwise(tmp_path: Path, cli: Cli) -> None:
    run = small_run(tmp_path, cli)
    other = os.path.join(os.path.relpath(tmp_path), "photos", "")
    result = cli("resume", str(run), "--set", f"data.source={other}")
    assert result.code == 0, result.err
    longer = ("--set", "stages.0.epochs=2", "--allow-change", "stages.0.epochs")
    mistyped = cli(
        "resume", str(run), "--set", f"data.source={tmp_path / 'phtos'}", "--allow-change", "data.source", *longer
    )
    assert_error(mistyped, 3, f"There is no folder '{tmp_path / 'phtos'}'; did you mean 'photos'?")
    (tmp_path / "empty").mkdir()
    empty = cli(
        "resume", str(run), "--set", f"data.source={tmp_path / 'empty'}", "--allow-change", "data.source", *longer
    )
    assert_error(empty, 3, "training images of the run is in", str(tmp_path / "empty"))


def test_a_bare_number_is_no_shape() -> None:
    with pytest.raises(LimitError, match="whose shape is 7, not a list of lengths"):
        check_shape(7)


def test_a_file_beyond_the_size_limit_is_not_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    resource = pytest.importorskip("resource")
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (4096, 4096))
    with pytest.raises(StorageError, match="larger than this system allows"), commit.storage_errors(tmp_path / "x"):
        raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0")


def test_a_command_that_is_terminated_removes_what_is_half_written(tmp_path: Path) -> None:
    def terminated() -> None:
        with stops_raised(), commit.folder(tmp_path / "model") as half:
            (half / "config.json").write_text("{}")
            os.kill(os.getpid(), signal.SIGTERM)
            raise AssertionError("the signal was not raised")

    with pytest.raises(Stopped, match="Stopped by SIGTERM") as stopped:
        terminated()
    assert stopped.value.exit_code == 143
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_what_a_killed_command_left_of_a_folder_is_removed_by_the_next(tmp_path: Path) -> None:
    dead = 2**22 + 7  # above the largest process id
    for name in ("model", "other"):
        (tmp_path / f".{name}.tmp-{dead}-00000000").mkdir()
    with commit.folder(tmp_path / "model") as half:
        (half / "config.json").write_text("{}")
    assert sorted(path.name for path in tmp_path.iterdir()) == [f".other.tmp-{dead}-00000000", "model"]


def test_images_that_are_named_twice_are_explained_once(
    tiny_run: Path, tiny_photos: Path, tmp_path: Path, cli: Cli
) -> None:
    image = next(tiny_photos.rglob("*.png"))
    result = cli("explain", tiny_run, image, image, "--out", tmp_path / "maps")
    assert (result.code, len(result.out.splitlines()), len(list((tmp_path / "maps").iterdir()))) == (0, 1, 1)
    assert "left out: 1 x named more than once" in result.err


@pytest.mark.parametrize("verb", ["explain", "predict"])
def test_where_no_image_can_be_read_the_error_says_so_and_expects_nothing(
    verb: str, tiny_run: Path, tmp_path: Path, cli: Cli
) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    result = cli(verb, tiny_run, tmp_path / "bad.jpg", *(("--out", tmp_path / "maps") if verb == "explain" else ()))
    assert result.code == 3
    assert "; its row says why." in result.err
    assert "expected:" not in result.err


def test_the_name_that_export_proposes_is_free(tiny_run: Path, tmp_path: Path, cli: Cli) -> None:
    (tmp_path / "net.onnx").touch()
    (tmp_path / "net-2.md").touch()
    result = cli("export", tiny_run, "-o", tmp_path / "net.foo")
    assert result.code == 2
    assert "net-3.onnx" in result.err


def test_a_mistyped_archive_is_told_with_the_one_that_is_meant(tmp_path: Path, cli: Cli) -> None:
    for name in ("photos.zip", "cut.zip"):
        with zipfile.ZipFile(tmp_path / name, "w") as archive:
            archive.writestr("cat/0.jpg", b"")
    path = tmp_path / "phots.zip"
    told = cli("train", str(path), *NO_WEIGHTS)
    assert_error(told, 3, f"There is no archive {str(path)!r}; did you mean 'photos.zip'?")
