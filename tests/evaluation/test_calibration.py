"""Temperatures: fitted on validation images, stored with the model, applied by what predicts, and no class moves."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.conftest import TINY_MODEL, Cli, photos

import regraft as rg
from regraft.evaluation.trust.reliability import calibration_error, reliability
from regraft.evaluation.trust.temperatures import FEWEST, fit_calibration
from regraft.models.describe.calibration import Calibration
from regraft.models.store.card import model_card


def drawn(num: int, num_classes: int, sharper: float, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits that are `sharper` times as large as those that the labels were drawn from."""
    noise = np.random.default_rng(seed)
    logits = noise.normal(0, 2, (num, num_classes))
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = (shares.cumsum(1) < noise.random((num, 1))).sum(1)
    return torch.from_numpy(logits * sharper).float(), torch.from_numpy(labels)


@pytest.mark.parametrize("sharper", [0.5, 1.0, 3.0])
def test_the_temperature_that_was_planted_is_found(sharper: float) -> None:
    logits, labels = drawn(4000, 5, sharper)
    calibration = fit_calibration("softmax", logits, labels)
    assert calibration is not None
    assert calibration.temperatures == pytest.approx((sharper,), rel=0.07)
    assert sharper != 1.0 or calibration.temperatures == (1.0,)
    after = calibration(logits, "softmax")
    assert (after.argmax(1) == logits.argmax(1)).all()
    assert reliability("softmax", after.softmax(1).numpy(), labels.numpy())["ece"] < 0.02


def test_a_class_has_its_own_only_where_that_holds_on_other_images() -> None:
    logits, labels = drawn(6000, 3, 1.0)
    logits[logits.argmax(1) == 0] *= 4
    calibration = fit_calibration("softmax", logits, labels)
    assert calibration is not None
    assert len(calibration.temperatures) == 3
    assert calibration.temperatures[0] > 3 > calibration.temperatures[1]
    assert (calibration(logits, "softmax").argmax(1) == logits.argmax(1)).all()


def test_labels_and_one_logit() -> None:
    noise = np.random.default_rng(1)
    logits = torch.from_numpy(noise.normal(0, 2, (5000, 2)))
    there = torch.from_numpy((noise.random((5000, 2)) < logits.sigmoid().numpy()).astype(np.uint8))
    stretched = logits * torch.tensor([4.0, 0.5])
    many = fit_calibration("multilabel", stretched, there)
    assert many is not None
    assert many.temperatures == pytest.approx((4.0, 0.5), rel=0.15)
    one = fit_calibration("binary", logits[:, :1] * 3, there[:, 0].long())
    assert one is not None
    assert one.temperatures == pytest.approx((3.0,), rel=0.1)


def test_a_threshold_moves_with_its_probabilities() -> None:
    calibration = Calibration((2.0,), 100)
    raw = torch.linspace(-4, 4, 81, dtype=torch.float64)[:, None]
    for threshold in (0.1, 0.5, 0.83):
        moved = calibration.thresholds({"yes": threshold})["yes"]
        assert ((calibration(raw, "binary").sigmoid() >= moved) == (raw.sigmoid() >= threshold)).all()


def test_what_cannot_be_fitted_is_left_alone() -> None:
    logits, labels = drawn(FEWEST - 1, 3, 2.0)
    assert fit_calibration("softmax", logits, labels) is None
    logits, labels = drawn(FEWEST, 3, 2.0)
    assert fit_calibration("softmax", logits * float("nan"), labels) is None
    right = torch.eye(3)[labels] * 9
    certain = fit_calibration("softmax", right, labels)
    assert certain is not None
    assert certain.temperatures == (1.0,), "no error at all is nothing to fit a temperature to"


def test_the_error_of_calibration_by_hand() -> None:
    confidence = np.array([0.9, 0.9, 0.9, 0.9, 0.6])
    right = np.array([True, True, False, False, True])
    assert calibration_error(confidence, right) == pytest.approx((4 * 0.4 + 0.4) / 5)


def test_exact_probabilities_are_off_by_chance_alone() -> None:
    logits, labels = drawn(300, 4, 1.0, seed=3)
    found = reliability("softmax", logits.softmax(1).numpy(), labels.numpy())
    assert 0 < found["ece"] <= found["ece_by_chance"][1] * 1.5
    assert sum(row["num"] for row in found["bins"]) == 300
    assert all(row["interval"][0] <= row["share"] <= row["interval"][1] for row in found["bins"])


@pytest.fixture(scope="module")
def calibrated_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("calibrated")
    images = photos(root / "photos", {"blue": 70, "green": 70, "red": 70})
    data = rg.open_data(images)
    model = rg.adapt(rg.build_model(TINY_MODEL), classes=data.class_names, image_size=32)
    plan = rg.make_plan(model, [rg.Stage("head", epochs=2, lr=0.03)])
    return rg.train(model, plan, data, out=root / "run", batch_size=16, show=False).path


def with_temperature(run: Path, value: float) -> Path:
    """The run, as if this temperature had been fitted."""
    config = json.loads((run / "model" / "config.json").read_text())
    config["regraft"]["calibration"]["temperatures"] = [value]
    (run / "model" / "config.json").write_text(json.dumps(config))
    return run


def test_a_run_stores_it_and_predicts_by_it(calibrated_run: Path, tmp_path: Path, cli: Cli) -> None:
    config = json.loads((calibrated_run / "model" / "config.json").read_text())
    assert config["regraft"]["calibration"]["num_images"] >= FEWEST
    assert "probabilities: " in (calibrated_run / "log.txt").read_text()
    run = with_temperature(shutil.copytree(calibrated_run, tmp_path / "run"), 2.5)
    measures = rg.evaluate(run, split="val")
    account = measures["calibration"]
    assert account["temperatures"] == [2.5]
    assert account["told"]["nll"] == pytest.approx(measures["loss"])
    assert account["told"]["nll"] > account["raw"]["nll"], "the run's own was better"
    assert measures["top1"] == rg.evaluate(calibrated_run, split="val")["top1"]
    assert "without the temperature" in cli("evaluate", run, "--split", "val").out
    page = rg.write_report(run).read_text()
    assert "Can the probabilities be believed?" in page
    assert "These are the images that it was fitted to." in page
    assert "If only the surest are answered" in page
    assert "temperature first (2.5), fitted on" in model_card(
        json.loads((run / "model" / "config.json").read_text()), {}
    )


def test_a_model_folder_without_one_predicts_as_it_did(calibrated_run: Path, tmp_path: Path) -> None:
    other = with_temperature(shutil.copytree(calibrated_run, tmp_path / "other"), 2.5)
    old = shutil.copytree(calibrated_run, tmp_path / "old")
    config = json.loads((old / "model" / "config.json").read_text())
    del config["regraft"]["calibration"]
    (old / "model" / "config.json").write_text(json.dumps(config))
    image = next((calibrated_run.parent / "photos").rglob("*.png"))
    (row,), (new,) = rg.predict(old, image), rg.predict(other, image)
    assert row.prediction == new.prediction
    assert new.probability is not None
    assert new.probability < (row.probability or 0)
    raw = np.log(list(row.probabilities.values()))
    expected = np.exp(raw / 2.5) / np.exp(raw / 2.5).sum()
    assert list(new.probabilities.values()) == pytest.approx(expected, rel=1e-3)
    assert "raw" not in rg.evaluate(old, split="val")["calibration"]


def test_a_damaged_temperature_is_named(calibrated_run: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(calibrated_run, tmp_path / "copied")
    config = json.loads((copied / "model" / "config.json").read_text())
    config["regraft"]["calibration"]["temperatures"] = [0]
    (copied / "model" / "config.json").write_text(json.dumps(config))
    with pytest.raises(rg.StorageError, match="positive temperature"):
        rg.load_model(copied)
