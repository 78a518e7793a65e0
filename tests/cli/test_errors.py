"""Every mistake ends in what happened, what helps and its exit code, never in a traceback."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conftest import COLOURS, Cli, Result, photo, photos

NO_WEIGHTS = ("--model", "test_efficientnet", "--set", "model.weights=none", "--image-size", "32")

SMALL_ALEXNET = ("--model", "alexnet", "--set", "model.args={widths: [8, 8, 8, 8, 8], hidden: 16}", *NO_WEIGHTS[2:4])


def assert_error(result: Result, code: int, *texts: str) -> None:
    assert result.code == code, result.err
    assert "Traceback" not in result.err
    assert "bug" not in result.err
    paragraph = result.err[result.err.index("error: ") :]
    what, *below = paragraph.splitlines()
    assert what.endswith((".", "?")), f"not a sentence: {what}"
    assert below, f"nothing is expected or to try: {paragraph}"
    assert all(line.startswith(("  - ", "    ", "  expected: ", "  try: ")) for line in below), paragraph
    for text in texts:
        assert text in result.err


def empty(root: Path) -> Path:
    (root / "empty").mkdir()
    return root / "empty"


def no_images(root: Path) -> Path:
    for name in ("cat", "dog"):
        (root / "bare" / name).mkdir(parents=True)
        (root / "bare" / name / "notes.txt").write_text("hello")
    return root / "bare"


def unequal(root: Path) -> Path:
    photos(root / "unequal" / "train", {"cat": 3, "dog": 3})
    photos(root / "unequal" / "val", {"cat": 2, "dgo": 2})
    return root / "unequal"


def unreadable(root: Path) -> Path:
    for name in ("cat", "dog"):
        for number in range(8):
            photo(root / "broken" / name / f"{number}.jpg", COLOURS["red"], number).write_bytes(b"")
    return root / "broken"


@pytest.mark.parametrize(
    ("make", "texts"),
    [
        (lambda root: root / "missing", ("There is no folder", "missing")),
        (empty, ("The folder is empty",)),
        (lambda root: photo(root / "one.png", COLOURS["red"], 1), ("is a file",)),
        (lambda root: photos(root / "single", {"cat": 4}), ("only one class", "'cat'")),
        (no_images, ("Its class folders hold no image", "'cat', 'dog'")),
        (unequal, ("Class 'dgo' is missing from train", "Class 'dog' is missing from val")),
        (unreadable, ("broken",)),
    ],
    ids=["missing", "empty", "file", "one class", "no images", "unequal", "unreadable"],
)
def test_data_that_cannot_be_used(
    cli: Cli, tmp_path: Path, make: Callable[[Path], Path], texts: tuple[str, ...]
) -> None:
    out = tmp_path / "run"
    assert_error(cli("train", make(tmp_path), "--out", out, *NO_WEIGHTS), 3, *texts)


@pytest.mark.parametrize(
    ("options", "code", "texts"),
    [
        (("--model", "resnet5O", "--set", "model.weights=none"), 2, ("There is no model 'resnet5O'", "resnet50")),
        (
            ("--set", "sed=3", "--set", "stages.0.lr=-1", "--set", "data.batch_size=none"),
            2,
            ("3 mistakes", "sed: no such setting; did you mean 'seed'", "stages.0.lr", "data.batch_size"),
        ),
        (("--set", "stages.all"), 2, ("is not an assignment",)),
        (("--set", "stages.tip.lr=1"), 2, ("'tip'", "head, all")),
        (("--stages", "heads"), 2, ("no stage 'heads'", "head, all")),
        (("--device", "gpu"), 2, ("Unknown device 'gpu'", "cuda")),
        (("--precision", "fp8"), 2, ("numerics.precision",)),
        (("--recipe", "no-such.yaml"), 2, ("no-such.yaml", "regraft recipe")),
        (("--set", "model.weights=no-such.pth", "--model", "test_resnet"), 4, ("no-such.pth",)),
        (("--set", "stages.0.train=nowhere", *NO_WEIGHTS), 2, ("nowhere",)),
        (("--set", "stages.1.name=head", *NO_WEIGHTS), 2, ("two stages are named 'head'",)),
        (("--set", "stages.1.optimizer=lbfgs", *NO_WEIGHTS), 2, ("stages.1", "lbfgs")),
        ((*SMALL_ALEXNET, "--image-size", "8"), 2, ("8x8 pixels",)),
        (("--set", "head.pool=flatten", "--model", "test_vit", "--set", "model.weights=none"), 2, ("feature map",)),
    ],
    ids=lambda value: " ".join(value)[:40] if isinstance(value, tuple) else str(value),
)
def test_settings_that_cannot_be_carried_out(
    cli: Cli, tiny_photos: Path, tmp_path: Path, options: tuple[str, ...], code: int, texts: tuple[str, ...]
) -> None:
    assert_error(cli("train", tiny_photos, "--out", tmp_path / "run", *options), code, *texts)
    assert not (tmp_path / "run").exists(), "a run that never began leaves nothing"


def test_no_photos_named(cli: Cli, tmp_path: Path) -> None:
    assert_error(cli("train", *NO_WEIGHTS), 2, "No data source was given", "regraft train DATA")


def test_an_out_that_exists_is_told_before_anything_else(cli: Cli, tiny_photos: Path, tiny_run: Path) -> None:
    before = sorted(path.name for path in tiny_run.iterdir())
    assert_error(cli("train", tiny_photos, "--out", tiny_run), 2, "exists already", f"regraft resume {tiny_run}")
    assert sorted(path.name for path in tiny_run.iterdir()) == before


@pytest.mark.parametrize("verb", ["evaluate", "report", "resume"])
def test_a_folder_that_is_no_run(cli: Cli, tmp_path: Path, verb: str) -> None:
    assert_error(cli(verb, tmp_path), 2, "is not a run folder")
    assert_error(cli(verb, tmp_path / "missing"), 2, "does not exist")


def test_predict_without_a_model_or_inputs(cli: Cli, tiny_run: Path, tmp_path: Path) -> None:
    assert_error(cli("predict", tmp_path, tmp_path), 2, "There is no model")
    assert_error(cli("predict", tiny_run, tmp_path / "missing.jpg"), 3, "There is no file or folder")
    assert_error(cli("predict", tiny_run, tmp_path), 3, "holds no images")
    assert_error(cli("predict", tiny_run, tmp_path, "--json", "--csv"), 2, "--json and --csv")


def test_evaluate_with_an_unknown_class(cli: Cli, tiny_run: Path, tmp_path: Path) -> None:
    other = photos(tmp_path / "other", {"green": 2, "pink": 2})
    assert_error(cli("evaluate", tiny_run, other), 3, "'pink'")


def test_debug_shows_the_traceback_and_keeps_the_exit_code(cli: Cli, tmp_path: Path) -> None:
    result = cli("--debug", "evaluate", tmp_path)
    assert result.code == 2
    assert "Traceback" in result.err
    assert "is not a run folder" in result.err
    assert "Traceback" not in cli("evaluate", tmp_path).err


def test_what_is_a_bug_is_called_one(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: Path) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr("regraft.run.folder.open_run", fail)
    result = cli("report", tmp_path)
    assert result.code == 1
    assert "This is a bug, not your mistake" in result.err
    assert "ZeroDivisionError: by zero" in result.err


def test_ctrl_c_ends_with_130(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(path: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("regraft.run.folder.open_run", interrupt)
    result = cli("report", tmp_path)
    assert result.code == 130
    assert "Interrupted" in result.err


def test_a_misspelt_verb_or_option_is_a_usage_error(cli: Cli, tmp_path: Path) -> None:
    assert cli("trian", tmp_path).code == 2
    result = cli("train", tmp_path, "--modle", "x")
    assert result.code == 2
    assert "--model" in result.err


@pytest.mark.slow  # with a command that needs no torch: test_streams.py
def test_a_reader_that_goes_away_is_no_error(tiny_run: Path, tiny_photos: Path) -> None:
    """A real process: `regraft predict RUN - | head -1`, whose input goes on after the pipe is closed."""
    path = next(photo.relative_to(tiny_photos) for photo in tiny_photos.glob("*/*.png"))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    command = [sys.executable, "-m", "regraft.cli.main", "predict", str(tiny_run), "-", "--threads", "1"]
    with subprocess.Popen(command, **pipes, text=True, bufsize=1, cwd=tiny_photos) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdin.write(f"{path}\n" * 2000)  # less than a pipe holds: nobody reads the answers yet
        process.stdin.flush()
        process.stdout.readline()
        process.stdout.close()
        process.stdin.close()
        errors = process.stderr.read()
    assert process.returncode == 0, errors
    assert "Traceback" not in errors
