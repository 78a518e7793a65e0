"""Masks out of fold: the metrics of all images together, with intervals over them, from what each fold counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.segmentation import scenes_in

import regraft as rg
from regraft.errors import StorageError
from regraft.evaluation.measuring.pixel_counts import PixelCounts, keep_pixel_counts, mask_metrics, with_intervals
from regraft.evaluation.metrics.pixels import BoundaryCounts, mask_confusion
from regraft.evaluation.out_of_fold import pooled_measures
from regraft.run.folder import open_run
from regraft.run.folds_folder import FoldsFolder, open_folds

NAMES = ("ground", "disc", "box")
NUM_IMAGES = 8  # of a fold


def fold(path: Path, seed: int) -> tuple[np.ndarray, PixelCounts]:
    """Write what a fold leaves of images whose pixels are right in four of five places."""
    noise = np.random.default_rng(seed)
    counts, confusion = PixelCounts(), np.zeros((3, 3), np.int64)
    boundaries = BoundaryCounts(3)
    for _ in range(NUM_IMAGES):
        truth = noise.integers(0, 3, (12, 16)).astype(np.uint8)
        said = np.where(noise.random((12, 16)) < 0.8, truth, 0).astype(np.uint8)
        own = mask_confusion(truth, said, 3)
        counts.append(own, boundaries.update(truth, said), float(noise.random()) * 90)
        confusion += own
    (path / "model").mkdir(parents=True)
    (path / "predictions").mkdir()
    (path / "model" / "config.json").write_text('{"regraft": {}}')
    record = {**mask_metrics(confusion, counts, NAMES), "output": "segmentation", "num_errors": 0}
    (path / "predictions" / "val.json").write_text(json.dumps(record))
    keep_pixel_counts(path / "predictions" / "val-counts.safetensors", counts)
    return confusion, counts


def cross_validation(root: Path) -> tuple[FoldsFolder, np.ndarray, PixelCounts]:
    parts = [fold(root / f"fold-{number}", number) for number in (1, 2)]
    (root / "folds.json").write_text('{"num_folds": 2}')
    (root / "predictions").mkdir()
    folds = open_folds(root)
    assert folds is not None
    return folds, parts[0][0] + parts[1][0], PixelCounts.joined(part[1] for part in parts)


def test_all_images_count_once_and_have_intervals(tmp_path: Path) -> None:
    folds, confusion, counts = cross_validation(tmp_path)
    pooled = pooled_measures(folds, {})
    expected = with_intervals(mask_metrics(confusion, counts, NAMES), counts)
    assert {key: pooled[key] for key in expected} == expected
    assert pooled["num_images"] == 2 * NUM_IMAGES
    assert set(pooled["intervals"]) == {"miou", "pixel_accuracy", "class_accuracy", "loss", "boundary_f1"}
    for key, (low, high) in pooled["intervals"].items():
        assert low < pooled[key] < high
    assert set(pooled["per_class"][1]["intervals"]) == {"iou", "recall", "precision", "boundary_f1"}


def test_folds_of_older_versions_have_the_metrics_without_intervals(tmp_path: Path) -> None:
    folds, _, _ = cross_validation(tmp_path)
    whole = pooled_measures(folds, {})
    (tmp_path / "fold-2" / "predictions" / "val-counts.safetensors").unlink()
    pooled = pooled_measures(folds, {})
    assert "intervals" not in pooled
    assert all(pooled[key] == whole[key] for key in ("miou", "pixel_accuracy", "class_accuracy", "confusion"))


@pytest.mark.parametrize("damage", ["cut", "other", "link"])
def test_counts_that_do_not_belong_there_are_refused(tmp_path: Path, damage: str) -> None:
    folds, _, counts = cross_validation(tmp_path)
    path = tmp_path / "fold-2" / "predictions" / "val-counts.safetensors"
    if damage == "cut":
        path.write_bytes(path.read_bytes()[:50])
    elif damage == "other":
        keep_pixel_counts(path, counts)
    else:
        path.unlink()
        path.symlink_to(tmp_path / "fold-1" / "predictions" / "val-counts.safetensors")
    with pytest.raises(StorageError, match=r"cannot be understood|is a link"):
        pooled_measures(folds, {})


@pytest.mark.slow
def test_a_cross_validation_on_masks(tmp_path: Path) -> None:
    args = {"encoder": "test_resnet", "depth": 3, "filters": [16, 8]}
    stage = {"name": "all", "train": "all", "epochs": 1, "optimizer": "adamw", "lr": 3e-3}
    recipe: dict[str, Any] = {
        "model": {"name": "unet", "weights": "none", "image_size": [48, 64], "args": args},
        "data": {"source": str(scenes_in(tmp_path / "scenes", {"": 12})), "batch_size": 4},
        "stages": [stage],
        "log": [],
    }
    done = rg.cross_validate(recipe, folds=2, out=tmp_path / "folds", show=False)
    pooled = json.loads((done.path / "predictions" / "out-of-fold.json").read_text())
    own = [json.loads((run.predictions / "val.json").read_text()) for run in done.runs]
    assert pooled["num_images"] == 12
    pixels = sum(item["num_pixels"] for item in own)
    assert pooled["loss"] == pytest.approx(sum(item["loss"] * item["num_pixels"] for item in own) / pixels)
    low, high = pooled["intervals"]["miou"]
    assert low < pooled["miou"] < high
    page = (done.path / "report.html").read_text()
    assert f"{low:.3f}–{high:.3f}" in page
    assert "epoch 1: fold 1 <strong>" in page, "a curve of one point is its value"
    run = open_run(done.runs[0].path)
    assert run.pixel_counts("val").is_file()
