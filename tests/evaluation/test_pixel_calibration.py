"""Temperatures and reliability of pixels: as of all of them at once, though none is kept; stored, and predicted by."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.conftest import Cli
from tests.segmentation import scenes_in

import regraft as rg
from regraft.evaluation.trust.pixel_reliability import PixelReliability
from regraft.evaluation.trust.pixel_temperature import FEWEST_WITH_MASKS, PixelTemperature
from regraft.evaluation.trust.reliability import reliability
from regraft.models.segment.tiles import Strip
from regraft.pipeline import finish

SIZE = (40, 60)


def drawn(sharper: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits (4, H, W) that are `sharper` times too large, and a mask drawn by the exact ones, with ignored columns."""
    noise = torch.Generator().manual_seed(seed)
    exact = 2 * torch.randn(4, *SIZE, generator=noise)
    truth = torch.multinomial(exact.softmax(0).flatten(1).T, 1, generator=noise).reshape(SIZE).byte()
    truth[:, :3] = 255
    return sharper * exact, truth


@pytest.mark.parametrize("sharper", [0.5, 1.0, 3.0])
def test_the_temperature_that_was_planted_is_found(sharper: float) -> None:
    fitted = PixelTemperature()
    for seed in range(12):
        fitted.take(*drawn(sharper, seed))
    found = fitted.fit()
    assert found is not None
    assert found.temperatures == (pytest.approx(sharper, rel=0.03),)
    assert found.num_images == 12


def test_what_cannot_be_fitted_is_left_alone() -> None:
    fitted = PixelTemperature()
    logits, truth = drawn(3.0, 0)
    fitted.take(logits, torch.full_like(truth, 255))  # counts for nothing
    for seed in range(FEWEST_WITH_MASKS - 1):
        fitted.take(*drawn(3.0, seed))
    assert fitted.fit() is None
    fitted.take(logits * float("nan"), truth)
    assert fitted.fit() is None


def test_images_that_contradict_each_other_keep_the_networks_own() -> None:
    fitted = PixelTemperature()
    for seed in range(12):
        fitted.take(*drawn(0.8 if seed % 2 else 1.25, seed))
    found = fitted.fit()
    assert found is not None
    assert found.temperatures == (1.0,)


def test_the_figures_are_those_of_all_pixels_at_once() -> None:
    account, shares, truths = PixelReliability(2.0), [], []
    for seed in range(12):
        logits, truth = drawn(1.0, seed)
        probabilities = (logits / 2).softmax(0)
        account.begin()
        for top in (0, 13, 30):
            account.take(Strip(top, probabilities[:, top : [13, 30, 40][[0, 13, 30].index(top)]]), truth.numpy())
        shares.append(logits[:, truth != 255].T)
        truths.append(truth[truth != 255])
    raw, labels = torch.cat(shares).double(), torch.cat(truths).numpy().astype(np.int64)
    found = account.compute()
    for name, logits in (("told", raw / 2), ("raw", raw)):
        expected = reliability("softmax", logits.softmax(1).numpy(), labels)
        for key in ("nll", "brier", "ece"):
            assert found[name][key] == pytest.approx(expected[key], rel=1e-4), (name, key)
            low, high = found[name]["intervals"][key]
            assert low <= high
        assert [row["num"] for row in found[name]["bins"]] == [row["num"] for row in expected["bins"]]
        assert found[name]["num_pixels"] == len(labels)
    assert float(torch.nn.functional.cross_entropy(raw, torch.from_numpy(labels))) == pytest.approx(
        found["raw"]["nll"], rel=1e-5
    )


def test_of_few_images_there_are_figures_and_no_intervals() -> None:
    account = PixelReliability(None)
    logits, truth = drawn(1.0, 0)
    account.begin()
    account.take(Strip(0, logits.softmax(0)), truth.numpy())
    found = account.compute()
    assert set(found) == {"told"}
    assert found["told"]["intervals"] == {}
    assert all(row["interval"] == [row["share"]] * 2 for row in found["told"]["bins"])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    scenes = scenes_in(tmp_path_factory.mktemp("scenes"), {"train": 8, "val": 10, "test": 2}, size=(32, 32))
    args = {"encoder": "test_resnet", "depth": 2, "filters": [8]}
    settings = {
        "model": {"name": "unet", "weights": "none", "image_size": 32, "args": args},
        "data": {"source": str(scenes), "batch_size": 4},
        "numerics": {"precision": "fp32", "threads": 1},
        "stages": [{"name": "all", "train": "all", "epochs": 1, "optimizer": "adamw", "lr": 3e-3}],
        "log": [],
    }
    return rg.run_recipe(settings, out=tmp_path_factory.mktemp("runs") / "run", show=False).path


def test_a_run_stores_it_and_predicts_by_it(run: Path, tmp_path: Path, cli: Cli) -> None:
    config = json.loads((run / "model" / "config.json").read_text())
    assert config["regraft"]["calibration"]["num_images"] == 10
    assert "probabilities of pixels: " in (run / "log.txt").read_text()
    other = shutil.copytree(run, tmp_path / "run")
    config["regraft"]["calibration"]["temperatures"] = [20.0]
    (other / "model" / "config.json").write_text(json.dumps(config))
    image = _test_images(run)
    (before, *_), (after, *_) = rg.predict_masks(run, image), rg.predict_masks(other, image)
    assert before.mask is not None
    assert after.mask is not None
    assert (before.mask == after.mask).mean() > 0.999
    assert (after.confidence or 1) < (before.confidence or 0)
    measures = rg.evaluate(other, split="val")
    account = measures["calibration"]
    assert account["temperatures"] == [20.0]
    assert account["told"]["nll"] == pytest.approx(measures["loss"], rel=1e-4)
    assert account["raw"]["nll"] == pytest.approx(_raw_nll(run), rel=1e-3)
    assert set(account["told"]["intervals"]) == {"nll", "brier", "ece"}
    for key in ("miou", "pixel_accuracy", "class_accuracy", "loss", "boundary_f1"):
        low, high = measures["intervals"][key]
        assert low <= measures[key] <= high, key
    for row in measures["per_class"]:
        assert {key for key in ("iou", "recall", "precision", "boundary_f1") if row[key]} <= set(row["intervals"])
        assert all(low <= row[key] <= high for key, (low, high) in row["intervals"].items())
    out = cli("evaluate", other, "--split", "val").out
    assert "without the temperature" in out
    assert "Brier score" in out
    assert "chance" not in out, "pixels are no draws of their own"
    page = rg.write_report(other).read_text()
    assert "Of the pixels that get 80 %" in page
    assert "95 % interval" in page


def test_views_have_no_raw_figures_and_explanations_are_as_told(run: Path, tmp_path: Path) -> None:
    assert "raw" not in rg.evaluate(run, split="val", tta="flip")["calibration"]
    (row, *_) = rg.explain(run, _test_images(run))
    assert 0 < (row.probability or 0) <= 1


def test_the_report_has_heat_maps_of_the_worst_images_by_class(run: Path, tmp_path: Path) -> None:
    copied = shutil.copytree(run, tmp_path / "copied")
    outcome = finish(copied)
    kept = json.loads((copied / "predictions" / "heat-maps" / "test.json").read_text())["images"]
    assert 0 < len(kept) <= 3
    assert all(0 < len(image["classes"]) <= 4 for image in kept.values())
    page = outcome.report.read_text()
    assert page.count("and where it speaks for") == sum(len(image["classes"]) for image in kept.values())
    for image in kept.values():
        image["miou"] += 0.5  # of another network
    (copied / "predictions" / "heat-maps" / "test.json").write_text(json.dumps({"images": kept}))
    assert "and where it speaks for" not in rg.write_report(copied).read_text()


def _test_images(run: Path) -> Path:
    return Path(json.loads((run / "splits.json").read_text())["source"]) / "test" / "images"


def _raw_nll(run: Path) -> float:
    """The cost of the run's own raw probabilities, as if it had no temperature."""
    plain = shutil.copytree(run, run.parent / "plain", dirs_exist_ok=True)
    config = json.loads((plain / "model" / "config.json").read_text())
    del config["regraft"]["calibration"]
    (plain / "model" / "config.json").write_text(json.dumps(config))
    return float(rg.evaluate(plain, split="val")["loss"])
