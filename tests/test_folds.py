"""Cross-validation: every image is predicted once, by the model that did not train on it; a stopped one goes on."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

import pytest

import regraft as rg
from regraft import folds as folds_module
from regraft.errors import SettingsError
from regraft.folds import Folds
from tests.conftest import Cli, photos

RECIPE: dict[str, Any] = {
    "model": {"name": "test_efficientnet", "weights": "none", "image_size": 32},
    "stages": [{"name": "head", "train": "head", "optimizer": "adamw", "lr": 0.01, "epochs": 1}],
    "seed": 4,
}


def recipe(photos: Path) -> dict[str, Any]:
    return {**RECIPE, "data": {"source": str(photos)}}


@pytest.fixture(scope="module")
def finished(tiny_photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Folds:
    return rg.cross_validate(recipe(tiny_photos), folds=3, out=tmp_path_factory.mktemp("folds") / "cv", show=False)


def rows(folds: Folds) -> list[dict[str, Any]]:
    text = (folds.path / "predictions" / "out-of-fold.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_every_image_is_predicted_once_and_not_by_a_model_that_trained_on_it(
    finished: Folds, tiny_photos: Path
) -> None:
    files = sorted(str(path) for path in tiny_photos.rglob("*.*"))
    assert sorted(row["path"] for row in rows(finished)) == files
    for number, run in enumerate(finished.runs, start=1):
        own = {row["path"] for row in rows(finished) if row["fold"] == number}
        splits = json.loads(run.splits.read_text())["splits"]
        assert {str(tiny_photos / path) for path, _ in splits["val"]} == own
        assert not {str(tiny_photos / path) for path, _ in splits["train"]} & own


def test_folds_are_stratified(finished: Folds) -> None:
    for run in finished.runs:
        labels = [label for _, label in json.loads(run.splits.read_text())["splits"]["val"]]
        assert {labels.count(name) for name in ("red", "green", "blue")} == {4}


def test_mean_and_spread_are_those_of_the_folds(finished: Folds) -> None:
    measured = [json.loads((run.predictions / "val.json").read_text())["top1"] for run in finished.runs]
    assert finished.measures["top1"]["folds"] == measured
    assert finished.measures["top1"]["mean"] == pytest.approx(statistics.mean(measured))
    assert finished.measures["top1"]["sd"] == pytest.approx(statistics.stdev(measured))
    assert json.loads((finished.path / "folds.json").read_text())["measures"] == finished.measures
    assert f"{statistics.mean(measured):.4f}" in finished.render()


def test_a_stopped_one_goes_on_where_it_was(
    finished: Folds, tiny_photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = folds_module.run_recipe

    def second_fails(*args: Any, out: Path, **options: Any) -> Any:
        if out.name == "fold-2":
            (out / "half").mkdir(parents=True)
            raise KeyboardInterrupt
        return original(*args, out=out, **options)

    monkeypatch.setattr(folds_module, "run_recipe", second_fails)
    with pytest.raises(KeyboardInterrupt):
        rg.cross_validate(recipe(tiny_photos), folds=3, out=tmp_path / "cv", show=False)
    first = (tmp_path / "cv" / "fold-1" / "metrics.jsonl").read_bytes()
    monkeypatch.undo()
    again = rg.resume_folds(tmp_path / "cv", show=False)
    assert (tmp_path / "cv" / "fold-1" / "metrics.jsonl").read_bytes() == first
    assert not (tmp_path / "cv" / "fold-2" / "half").exists()
    assert again.measures == finished.measures


def test_a_stored_recipe_of_a_fold_is_that_fold(finished: Folds, tiny_photos: Path, tmp_path: Path) -> None:
    stored = finished.runs[1].settings()
    run = rg.run_recipe(stored, out=tmp_path / "again", show=False)
    assert json.loads(run.splits.read_text())["splits"] == json.loads(finished.runs[1].splits.read_text())["splits"]


def test_bad_requests_say_what_to_type(tiny_photos: Path, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="40 folds were asked for"):
        rg.cross_validate(recipe(tiny_photos), folds=40, out=tmp_path / "many", show=False)
    with pytest.raises(SettingsError, match="regraft train --folds"):
        rg.resume_folds(tmp_path)
    one = {**recipe(tiny_photos), "data": {"source": str(tiny_photos), "fold": [0, 3]}}
    with pytest.raises(SettingsError, match="one fold itself"):
        rg.cross_validate(one, folds=3, out=tmp_path / "one")


def test_the_folder_predicts_the_mean_of_its_models(finished: Folds, tiny_photos: Path) -> None:
    files = sorted(map(str, tiny_photos.rglob("*.*")))[:5]
    together = rg.predict(finished.path, files)
    alone = [rg.predict(run.path, files) for run in finished.runs]
    for row, prediction in enumerate(together):
        for name, probability in prediction.probabilities.items():
            mean = statistics.mean(rows[row].probabilities[name] for rows in alone)
            assert probability == pytest.approx(mean, abs=1e-5)


def test_all_folds_together_are_measured_once(finished: Folds) -> None:
    pooled = rg.evaluate(finished.path)
    right = [row["prediction"] == row["label"] for row in rows(finished)]
    assert pooled["top1"] == pytest.approx(sum(right) / len(right))
    assert pooled["num_images"] == len(right)
    assert pooled["label"].startswith("out of fold")
    assert sum(map(sum, pooled["confusion"])) == len(right)
    assert json.loads((finished.path / "predictions" / "out-of-fold.json").read_text()) == pooled


def test_other_images_are_measured_with_all_models_together(finished: Folds, tmp_path: Path) -> None:
    other = photos(tmp_path / "other", {"red": 3, "green": 3}, seed=5)
    measures = rg.evaluate(finished.path, other)
    together = rg.predict(finished.path, sorted(map(str, other.rglob("*.png"))))
    right = sum(row.prediction == Path(row.path).parent.name for row in together)
    assert measures["top1"] == pytest.approx(right / 6)
    assert [path.name for path in (finished.path / "fold-1" / "predictions").glob("other*")] == []


def test_every_verb_takes_the_folder(finished: Folds, cli: Cli, tiny_photos: Path) -> None:
    for arguments in (("inspect",), ("report",), ("evaluate",)):
        result = cli(*arguments, finished.path)
        assert result.code == 0, result.err
    assert "3 folds" in cli("evaluate", finished.path).out
    assert "accuracy (out of fold" in cli("evaluate", finished.path).out
    assert "fold-3: finished" in cli("inspect", finished.path).out
    assert len(cli("predict", finished.path, tiny_photos / "red").out.splitlines()) == 12
    refused = cli("evaluate", finished.path, "--split", "train")
    assert (refused.code, "every fold has another split" in refused.err) == (2, True)
    listed = cli("runs", finished.path.parent).out
    assert "3 of 3 folds" in listed
    assert "mean top1" in listed


def test_one_report_for_all_folds(finished: Folds) -> None:
    page = (finished.path / "report.html").read_text()
    mean, sd = finished.measures["top1"]["mean"], finished.measures["top1"]["sd"]
    assert f"{mean:.1%} ± {sd:.1%}" in page
    assert all(f'href="fold-{number}/report.html"' in page for number in (1, 2, 3))
    assert "out of fold, also used for selection" in page
    for number in (1, 2, 3):  # of one epoch there is no line, but its value
        assert page.count(f"fold {number} <strong>") == 2, "in both charts"
    assert 0 < page.count("and where it speaks for") <= 12, "heat maps of the folds' own images"


@pytest.mark.slow
def test_the_command_line(cli: Cli, tiny_photos: Path, tmp_path: Path) -> None:
    settings = ["--set", "model.weights=none", "--stages", "head", "--model", "test_efficientnet", "--image-size", "32"]
    result = cli("train", str(tiny_photos), "--folds", "2", "--out", str(tmp_path / "cv"), *settings)
    assert result.code == 0, result.err
    assert "2 folds" in result.out
    assert "top1" in result.out
    assert (tmp_path / "cv" / "fold-2" / "report.html").is_file()
    again = cli("resume", str(tmp_path / "cv"))
    assert again.out == result.out
