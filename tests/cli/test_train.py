"""`regraft train` and `resume` from the command line: what is written, what is said, what wins over what."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from tests.conftest import COLOURS, Cli, photo, photos

TINY = ("--set", "model.weights=none", "--image-size", "32", "--threads", "1")
RUN_FILES = {
    "recipe.yaml", "command.txt", "environment.json", "status.json", "classes.json", "splits.json", "audit.json",
    "metrics.jsonl", "metrics.csv", "log.txt", "checkpoints", "last.json", "best.json", "networks.json", "predictions",
    "report.html", "model", "tensorboard", "batches", "check.json",
}  # fmt: skip
RECIPE = """\
model: {name: test_resnet, weights: none, image_size: 32}
defaults: {epochs: 1, lr: 1e-2}
stages:
- {name: warm}
- {name: all, train: all, optimizer: sgd}
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def recipe_of(run: Path) -> dict:  # type: ignore[type-arg]
    return yaml.safe_load((run / "recipe.yaml").read_text())  # type: ignore[no-any-return]


@pytest.mark.usefixtures("here")
def test_a_whole_run_without_out(cli: Cli, tiny_photos: Path) -> None:
    result = cli("train", tiny_photos, "--model", "test_efficientnet", "--set", "defaults.epochs=1", *TINY)
    assert result.code == 0, result.err
    run = Path("runs/colours-1")
    assert {path.name for path in run.iterdir()} == RUN_FILES
    assert json.loads((run / "status.json").read_text())["state"] == "finished"
    assert json.loads((run / "classes.json").read_text()) == ["blue", "green", "red"]
    assert "accuracy (test): " in result.out
    assert f"model: {run / 'model'}" in result.out
    assert f"report: {run / 'report.html'}" in result.out
    time = next(line for line in result.out.splitlines() if line.startswith("time: ")).removeprefix("time: ")
    page = (run / "report.html").read_text()
    assert f"<dt>Time</dt><dd>{time}</dd>" in page, "the report says what the terminal says"
    assert sorted(path.name for path in (run / "batches").iterdir()) == ["0.jpg", "1.jpg"]
    assert page.count("as the network sees them") == 2
    assert [stage["epochs"] for stage in recipe_of(run)["stages"]] == [None, 1], "a solved stage has no epochs"
    assert (run / "command.txt").read_text().startswith("regraft train ")

    again = cli("resume", run)
    assert (again.code, again.err) == (0, "")
    assert "is finished; nothing to do" in again.out


@pytest.mark.usefixtures("here")
def test_options_win_over_the_recipe_and_set_wins_over_options(cli: Cli, tiny_photos: Path) -> None:
    Path("mine.yaml").write_text(RECIPE + "data: {source: elsewhere}\nseed: 3\n")
    options = ("--seed", "4", "--set", "seed=5", "--set", "stages.warm.lr=3e-2", "--stages", "warm", "--out", "out")
    result = cli("train", tiny_photos, "--recipe", "mine.yaml", *options)
    assert result.code == 0, result.err
    recipe = recipe_of(Path("out"))
    assert recipe["seed"] == 5
    assert recipe["data"]["source"] == str(tiny_photos)
    assert [(stage["name"], stage["lr"], stage["epochs"]) for stage in recipe["stages"]] == [("warm", 0.03, None)]


@pytest.mark.usefixtures("here")
def test_the_recipe_of_a_run_trains_the_same_model_again(cli: Cli, tiny_photos: Path) -> None:
    Path("mine.yaml").write_text(RECIPE)
    assert cli("train", tiny_photos, "--recipe", "mine.yaml", "--out", "one", "--threads", "1").code == 0
    assert cli("train", "--recipe", "one/recipe.yaml", "--out", "two").code == 0
    weights = [(Path(run) / "model" / "model.safetensors").read_bytes() for run in ("one", "two")]
    assert weights[0] == weights[1], "same seed, same machine: same bits"
    one, two = recipe_of(Path("one")), recipe_of(Path("two"))
    assert one == two


@pytest.mark.usefixtures("here")
def test_the_printed_recipe_is_the_one_of_a_run_without_options(cli: Cli) -> None:
    from regraft.recipe.recipe import default_recipe, read_recipe, validate_recipe

    Path("default.yaml").write_text(cli("recipe").out)
    assert validate_recipe(read_recipe("default.yaml")) == validate_recipe(default_recipe())


def test_without_a_test_split_the_accuracy_is_labelled(cli: Cli, here: Path) -> None:
    for split, count in (("train", 6), ("valid", 3)):
        photos(here / "data" / split, {"green": count, "red": count})
    result = cli("train", "data", "--model", "test_resnet", "--stages", "head", *TINY)
    assert result.code == 0, result.err
    lines = [line for line in result.out.splitlines() if "accuracy" in line]
    assert lines
    assert all("(validation, also used for selection)" in line for line in lines)


def test_bad_files_are_listed_and_the_run_goes_on(cli: Cli, here: Path) -> None:
    root = photos(here / "data", {"green": 12, "red": 12})
    (root / "green" / "empty.jpg").write_bytes(b"")
    (root / "red" / "page.jpg").write_text("<!DOCTYPE html><html></html>")
    (root / "red" / ".DS_Store").write_bytes(b"\0")
    photo(root / "red" / "cut.jpg", COLOURS["red"], 1).write_bytes(
        photo(here / "whole.jpg", COLOURS["red"], 1).read_bytes()[:300]
    )
    result = cli("train", "data", "--model", "test_resnet", "--stages", "head", *TINY)
    assert result.code == 0, result.err
    splits = json.loads(Path("runs/data-1/splits.json").read_text())
    predictions = Path("runs/data-1/predictions/test.jsonl").read_text()
    listed = {Path(item["path"]).name for item in splits["quarantined"]}
    in_test = {Path(path).name for path, _ in splits["splits"]["test"]}
    for name in ("empty.jpg", "page.jpg", "cut.jpg"):
        assert name in (listed | in_test)
        assert name in listed or name in predictions
    assert "warning" in result.err or listed == set()


def test_resume_of_a_run_that_was_stopped(
    cli: Cli, here: Path, tiny_photos: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The stop comes through the very flag that Ctrl-C sets, after the first stage; resume ends in the same bits."""
    import os
    import signal

    from regraft.training.loop import sinks

    options = ("--model", "test_efficientnet", "--set", "defaults.epochs=2", *TINY)
    assert cli("train", tiny_photos, "--out", "whole", *options).code == 0

    def epoch(self, record):  # type: ignore[no-untyped-def]
        if record["stage"] == "all":
            os.kill(os.getpid(), signal.SIGINT)
        return real(self, record)

    real = sinks.Sinks.epoch
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sinks.Sinks, "epoch", epoch)
        stopped = cli("train", tiny_photos, "--out", "cut", *options)
    assert stopped.code == 130
    assert "regraft resume cut" in stopped.err
    assert json.loads(Path("cut/status.json").read_text())["state"] == "stopped"
    assert cli("predict", "cut", tiny_photos).code == 0
    assert "cut has not finished: this is its best epoch so far" in caplog.text
    resumed = cli("resume", "cut")
    assert resumed.code == 0, resumed.err
    weights = [(Path(run) / "model" / "model.safetensors").read_bytes() for run in ("whole", "cut")]
    assert weights[0] == weights[1]


@pytest.mark.parametrize("cache", ["off", "disk"])
@pytest.mark.usefixtures("here")
def test_the_cache_is_chosen_said_and_kept_in_the_recipe(
    cache: str, cli: Cli, tiny_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("REGRAFT_CACHE", str(tmp_path / "cache"))
    options = ("--model", "test_efficientnet", "--set", "defaults.epochs=1", "--stages", "head", "--out", "run", *TINY)
    result = cli("train", tiny_photos, *options, "--cache", cache, "--feature-cache", "2")
    assert result.code == 0, result.err
    assert recipe_of(Path("run"))["data"]["cache"] == cache
    assert recipe_of(Path("run"))["feature_cache"] == {"views": 2}
    there = {"off": "decoded again for each batch", "disk": f"on the disk in {tmp_path / 'cache' / 'pixels'}"}
    assert there[cache] in result.err


def test_an_unknown_cache_is_refused(cli: Cli, tiny_photos: Path) -> None:
    result = cli("train", tiny_photos, "--cache", "cloud")
    assert result.code == 2
    assert "data.cache" in result.err


@pytest.mark.parametrize("extra", [(), ("--dry-run",)])
def test_images_too_small_to_show_anything(cli: Cli, here: Path, extra: tuple[str, ...]) -> None:
    photos(here / "data", {"red": 6, "green": 6})
    small = ("--set", "model.weights=none", "--model", "test_resnet", "--image-size", "1")
    result = cli("train", here / "data", *small, *extra)
    assert result.code == 2
    assert "Images of 1x1 pixels are too small for this network." in result.err
    assert "at least 8 pixels" in result.err
    assert not (here / "runs").exists()
