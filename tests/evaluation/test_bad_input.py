"""One image, one class, identical images, no error, no validation folder: what cannot be said is left out."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.conftest import Cli, photos

import regraft as rg
from regraft.evaluation.trust.intervals import label_intervals
from regraft.evaluation.trust.reliability import reliability
from regraft.pipeline import finish


@pytest.fixture
def run(tiny_run: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_run, tmp_path / "run")


def told_plainly(measures: dict[str, Any]) -> dict[str, Any]:
    """The measures, which hold no number that is none."""
    json.dumps(measures, allow_nan=False)
    return measures


def test_one_image(run: Path, tmp_path: Path, cli: Cli) -> None:
    measures = told_plainly(rg.evaluate(run, photos(tmp_path / "new", {"red": 1}, seed=7)))
    assert measures["num_images"] == 1
    low, high = measures["intervals"]["top1"]
    assert high - low > 0.7, "one image says next to nothing"
    assert "loss" not in measures["intervals"]
    assert measures["calibration"]["told"]["intervals"] == {}
    assert "1 image: too few" in rg.write_report(run).read_text()
    out = cli("evaluate", run, tmp_path / "new").out
    assert "ECE" in out
    assert "nan" not in out.lower()


def test_one_class_has_no_figure_of_the_others(run: Path, tmp_path: Path, cli: Cli) -> None:
    measures = told_plainly(rg.evaluate(run, photos(tmp_path / "new", {"red": 12}, seed=7)))
    rows = {row["name"]: row for row in measures["per_class"]}
    assert rows["blue"]["support"] == 0
    assert "recall" not in rows["blue"]["intervals"]
    (line,) = (line for line in cli("evaluate", run, tmp_path / "new").out.splitlines() if line.startswith("  blue "))
    assert "recall –" in line
    assert "f1 –" in line
    assert set(measures["calibration"]["told"]["intervals"]) == {"nll", "brier", "ece"}


def test_identical_images_under_two_labels(run: Path, tmp_path: Path) -> None:
    first = next(photos(tmp_path / "one", {"red": 1}).rglob("*.png"))
    for name in ("blue", "red"):
        (tmp_path / "new" / name).mkdir(parents=True)
        for number in range(8):
            shutil.copy(first, tmp_path / "new" / name / f"{number}.png")
    measures = told_plainly(rg.evaluate(run, tmp_path / "new"))
    assert measures["top1"] in (0.0, 0.5)
    assert len(measures["calibration"]["risk_coverage"]) == 1, "equal confidences are not told apart"
    found = rg.check(tmp_path / "new", model="none")
    assert found.of("label-conflict") or any("two labels" in issue.text for issue in found.issues)


def test_without_an_error_nothing_is_made_up(run: Path, tmp_path: Path) -> None:
    new = tmp_path / "new"
    for number, said in enumerate(rg.predict(run, photos(tmp_path / "some", {"red": 6, "blue": 6}))):
        (new / str(said.prediction)).mkdir(parents=True, exist_ok=True)
        shutil.copy(said.path, new / str(said.prediction) / f"{number}.png")
    measures = told_plainly(rg.evaluate(run, new))
    assert measures["top1"] == 1
    low, high = measures["intervals"]["top1"]
    assert low < 0.8
    assert high == pytest.approx(1)
    page = rg.write_report(run).read_text()
    assert "Every image was classified correctly." in page
    same = rg.compare(run, shutil.copytree(run, tmp_path / "other"), new)
    assert same.measures["paired"]["p"] == 1
    assert "is better" not in same.verdict
    json.dumps(same.to_dict(), allow_nan=False)


def test_an_image_of_a_single_colour_is_explained(run: Path, tmp_path: Path) -> None:
    Image.new("RGB", (48, 48), (128, 128, 128)).save(tmp_path / "grey.png")
    (row,) = rg.explain(run, tmp_path / "grey.png")
    assert row.error is None
    assert np.isfinite(row.heat()).all()
    json.dumps(row.to_dict(), allow_nan=False)


@pytest.mark.parametrize("output", ["softmax", "binary", "multilabel"])
def test_constant_probabilities_have_finite_figures(output: str) -> None:
    shares = np.full((12, 2), 0.5)
    labels = np.zeros((12, 2) if output == "multilabel" else 12, np.int64)
    found = reliability(output, shares, labels)
    json.dumps(found, allow_nan=False)
    assert found["ece"] == pytest.approx(0.5)
    assert all(low <= high for low, high in found["intervals"].values())


def test_a_class_without_images_is_left_out_of_the_means() -> None:
    measures = {
        "top1": 1.0,
        "loss": 0.1,
        "balanced_accuracy": 1.0,
        "confusion": [[12, 0], [0, 0]],
        "per_class": [{"support": 12, "recall": 1.0}, {"support": 0, "recall": None}],
    }
    found = label_intervals("softmax", measures, np.tile((0.9, 0.1), (12, 1)), np.zeros(12, np.int64))
    told_plainly(found)
    assert found["per_class"][1]["intervals"] == {}
    assert found["intervals"]["balanced_accuracy"] == pytest.approx(found["intervals"]["top1"], abs=0.02)


def test_without_a_validation_folder_the_drawn_split_is_named(tmp_path: Path) -> None:
    for split in ("train", "test"):
        photos(tmp_path / "photos" / split, {"blue": 8, "red": 8}, seed=len(split))
    found = rg.check(tmp_path / "photos", model="none")
    assert any("There is no validation folder" in issue.text for issue in found.issues)
    (untold,) = found.not_computed
    assert untold.startswith("near copies by features")


def test_a_run_of_few_images_says_that_its_probabilities_are_raw(run: Path) -> None:
    page = finish(run).report.read_text()
    assert "probabilities are raw: " in (run / "log.txt").read_text()
    assert "These probabilities are the network" in page
